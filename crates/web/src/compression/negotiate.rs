//! Finds the coding that a client prefers (RFC 9110 section 12.5.3).

use attache_config::model::Coding;
use attache_wire::ValueRef;

/// The result of the negotiation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ChosenCoding {
    /// `None`: the response is sent as it is.
    pub(super) coding: Option<Coding>,
    /// The client accepts only encoded responses.
    pub(super) identity_is_refused: bool,
}

/// A weight in thousandths. `None` if it is invalid; such a member is ignored.
fn weight(text: &str) -> Option<u16> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    if part.len() > 3 || !part.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let part: u16 = format!("{part:0<3}").parse().ok()?;
    match (whole, part) {
        ("0", part) => Some(part),
        ("1", 0) => Some(1000),
        _ => None,
    }
}

/// Chooses a coding. `codings` are in the order of the config. If the request lacks the field, the response is not compressed.
pub(super) fn choose<'a>(codings: &[Coding], lines: impl Iterator<Item = ValueRef<'a>>) -> ChosenCoding {
    let mut weights: Vec<(String, u16)> = Vec::new();
    for line in lines {
        // A line that isn't text is ignored.
        for member in line.to_str().unwrap_or_default().split(',') {
            let mut parts = member.split(';').map(str::trim);
            let name = parts.next().unwrap_or_default().to_ascii_lowercase();
            let given = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
            let weight = given.map_or(Some(1000), weight);
            if let Some(weight) = weight.filter(|_| !name.is_empty()) {
                weights.push((name, weight));
            }
        }
    }
    // If a coding is named twice, the lower weight counts, because the client may have refused it.
    let of = |name: &str| weights.iter().filter(|(given, _)| given == name).map(|(_, weight)| *weight).min();
    let any = of("*");
    let of_coding = |coding: &Coding| {
        let alias = if *coding == Coding::Gzip { of("x-gzip") } else { None };
        of(coding.as_str()).or(alias).or(any).unwrap_or(0)
    };
    let identity = of("identity").or(any.filter(|any| *any == 0));
    // Of several equal ones, `max_by_key` takes the last.
    let best =
        codings.iter().rev().map(|coding| (coding, of_coding(coding))).max_by_key(|(_, weight)| *weight);
    let best = best.filter(|(_, weight)| *weight > 0 && identity.is_none_or(|identity| identity <= *weight));
    ChosenCoding { coding: best.map(|(coding, _)| *coding), identity_is_refused: identity == Some(0) }
}

#[cfg(test)]
mod tests {
    use attache_wire::Fields;
    use http::HeaderValue;

    use super::*;

    const ALL: [Coding; 3] = [Coding::Zstd, Coding::Br, Coding::Gzip];

    fn chosen(lines: &[&str]) -> ChosenCoding {
        let mut fields = Fields::new();
        for line in lines {
            fields.append("accept-encoding", HeaderValue::from_str(line).unwrap());
        }
        choose(&ALL, fields.get_all("accept-encoding"))
    }

    #[test]
    fn the_client_s_preference_decides_and_then_the_order_of_the_config() {
        for (lines, expected) in [
            (&["gzip, deflate, br, zstd"][..], Some(Coding::Zstd)),
            (&["gzip", "br"], Some(Coding::Br)),
            (&["gzip;q=1.0, br;q=0.5"], Some(Coding::Gzip)),
            (&["GZIP ; q=0.001"], Some(Coding::Gzip)),
            (&["x-gzip"], Some(Coding::Gzip)),
            (&["*"], Some(Coding::Zstd)),
            (&["*;q=0.5, zstd;q=0"], Some(Coding::Br)),
            (&["gzip;q=0.5, identity"], None),
            (&["gzip;q=0.5, identity;q=0.5"], Some(Coding::Gzip)),
            (&["gzip;q=0"], None),
            (&["gzip", "gzip;q=0"], None),
            (&["gzip;q=0.0000"], None),
            (&["gzip;q=2, br;q=-1, zstd;q=x"], None),
            (&["deflate"], None),
            (&[""], None),
            (&[], None),
        ] {
            assert_eq!(chosen(lines).coding, expected, "{lines:?}");
        }
        for (lines, refused) in
            [("identity;q=0, gzip", true), ("*;q=0, gzip", true), ("gzip", false), ("*;q=0, identity", false)]
        {
            assert_eq!(chosen(&[lines]).identity_is_refused, refused, "{lines}");
        }
    }
}
