//! Go's durations, as the API has them.

use crate::tree::Node;

/// Go's durations (`1m30s`, `1.5h`, `100ms`) in seconds.
pub(super) fn duration(node: &Node) -> Node {
    let text = node.text().unwrap_or_default();
    let (mut seconds, mut number) = (0.0_f64, String::new());
    let mut unit = String::new();
    let mut end = |number: &mut String, unit: &mut String| {
        let factor = match unit.as_str() {
            "h" => 3600.0,
            "m" => 60.0,
            "ms" => 0.001,
            "us" | "µs" => 0.000_001,
            "ns" => 0.000_000_001,
            _ => 1.0,
        };
        seconds += number.parse::<f64>().unwrap_or(0.0) * factor;
        number.clear();
        unit.clear();
    };
    for c in text.chars() {
        if c.is_ascii_digit() || c == '.' {
            if !unit.is_empty() {
                end(&mut number, &mut unit);
            }
            number.push(c);
        } else {
            unit.push(c);
        }
    }
    end(&mut number, &mut unit);
    node.scalar(&format!("{seconds}s"))
}
