//! Quantities of Kubernetes, as far as attache must add them: `100m`, `0.5`, `64Mi`, `1e3`.
//!
//! Source: the `Quantity` type of `k8s.io/apimachinery/pkg/api/resource`. They are kept in billionths (`n`), the finest
//! unit of that type.

/// An amount that isn't negative.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Quantity(i128);

const ONE: i128 = 1_000_000_000;
const BINARY: [&str; 6] = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

impl Quantity {
    /// Reads a quantity; `None` if it isn't one, or is too large. A fraction of the finest unit is rounded up, as in
    /// Kubernetes.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let text = text.strip_prefix('+').unwrap_or(text);
        let unit = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(unit);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() || fraction.contains('.') || number.len() > 24 {
            return None;
        }
        let digits: i128 = format!("0{whole}{fraction}").parse().ok()?;
        let (mut value, mut divisor) = (digits, 10_i128.checked_pow(fraction.len().try_into().ok()?)?);
        let exponent = match unit {
            "n" => -9,
            "u" => -6,
            "m" => -3,
            "" => 0,
            "k" => 3,
            "M" => 6,
            "G" => 9,
            "T" => 12,
            "P" => 15,
            "E" => 18,
            unit => match BINARY.iter().position(|binary| *binary == unit) {
                Some(power) => {
                    value = value.checked_mul(1 << (10 * (power + 1)))?;
                    0
                }
                None => unit.strip_prefix(['e', 'E'])?.parse::<i32>().ok()?,
            },
        };
        let power = 10_i128.checked_pow(exponent.unsigned_abs())?;
        if exponent < 0 {
            divisor = divisor.checked_mul(power)?;
        } else {
            value = value.checked_mul(power)?;
        }
        let value = value.checked_mul(ONE)?;
        Some(Self(value / divisor + i128::from(value % divisor > 0)))
    }

    pub(crate) fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// As a number of CPUs: whole, or in thousandths.
    pub(crate) fn cpu(self) -> String {
        let thousandths = up(self.0, ONE / 1000);
        if thousandths % 1000 == 0 { (thousandths / 1000).to_string() } else { format!("{thousandths}m") }
    }

    /// As bytes, in the largest binary unit in which it is a whole number.
    pub(crate) fn memory(self) -> String {
        let mut number = up(self.0, ONE);
        let mut unit = "";
        for larger in BINARY {
            if number == 0 || number % 1024 != 0 {
                break;
            }
            (number, unit) = (number / 1024, larger);
        }
        format!("{number}{unit}")
    }
}

fn up(value: i128, unit: i128) -> i128 {
    value / unit + i128::from(value % unit > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_kubernetes_reads_them() {
        let sum = |a: &str, b: &str| Quantity::parse(a).unwrap().plus(Quantity::parse(b).unwrap());
        assert_eq!(sum("100m", "50m").cpu(), "150m");
        assert_eq!(sum("0.5", "500m").cpu(), "1");
        assert_eq!(sum("1", "50m").cpu(), "1050m");
        assert_eq!(sum("64Mi", "64Mi").memory(), "128Mi");
        assert_eq!(sum("1Gi", "64Mi").memory(), "1088Mi");
        assert_eq!(sum("128974848", "64Mi").memory(), "187Mi");
        assert_eq!(sum("100M", "1Ki").memory(), "100001024");
        assert_eq!(sum("1e3", "24").memory(), "1Ki");
        assert_eq!(sum(".5Gi", "0").memory(), "512Mi");
        for wrong in ["", "m", "-1", "1.2.3", "1 Mi", "1mi", "ten", "1e", "99999999999999999999999999"] {
            assert_eq!(Quantity::parse(wrong), None, "{wrong}");
        }
    }
}
