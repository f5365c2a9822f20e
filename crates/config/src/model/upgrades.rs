//! Which protocols a client's connection may switch to.

use super::prelude::*;

/// Which protocols a request may ask for by `Upgrade`, or in HTTP/2 by an extended CONNECT (RFC 8441).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Upgrades {
    /// Every protocol that attache carries.
    #[default]
    Any,
    /// None: the request is served without the upgrade (RFC 9110 section 7.8). An extended CONNECT has no meaning
    /// without the upgrade, so it is refused.
    Ignore,
    /// These, in lower case. A request for another one is refused.
    Only(Vec<Name>),
}

impl Upgrades {
    /// Whether all of these protocols may be asked for. The upstream chooses among what is offered.
    pub fn allow<'p>(&self, mut protocols: impl Iterator<Item = &'p str>) -> bool {
        match self {
            Self::Any => true,
            Self::Ignore => false,
            Self::Only(list) => {
                protocols.all(|protocol| list.iter().any(|known| known.eq_ignore_ascii_case(protocol)))
            }
        }
    }
}

/// As the file writes it.
impl fmt::Display for Upgrades {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::Ignore => f.write_str("ignore"),
            Self::Only(list) if list.is_empty() => f.write_str("off"),
            Self::Only(list) => f.write_str(&list.join(", ")),
        }
    }
}

/// A word for all protocols, or those that are allowed.
pub(crate) struct UpgradesForm;

/// A word for all protocols.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
enum UpgradesWord {
    /// Every protocol.
    Any,
    /// None: a request for one is refused.
    Off,
    /// None: a request for one is served without the upgrade.
    Ignore,
}

impl Show<Upgrades> for UpgradesForm {
    fn show(value: &Upgrades) -> Value {
        match value {
            Upgrades::Only(list) if !list.is_empty() => List::<UpgradeText>::show(list),
            word => json!(word.to_string()),
        }
    }
}

impl Notation<Upgrades> for UpgradesForm {
    fn schema(generator: &mut SchemaGenerator) -> Schema {
        let word = generator.subschema_for::<UpgradesWord>();
        let one = generator.subschema_for::<Text<UpgradeText>>();
        json_schema!({ "anyOf": [word, one, { "type": "array", "items": one, "minItems": 1 }] })
    }

    fn read(value: Value) -> serde_json::Result<Upgrades> {
        Ok(match serde_json::from_value(value.clone()) {
            Ok(UpgradesWord::Any) => Upgrades::Any,
            Ok(UpgradesWord::Off) => Upgrades::Only(Vec::new()),
            Ok(UpgradesWord::Ignore) => Upgrades::Ignore,
            Err(_) => Upgrades::Only(List::<UpgradeText>::read(value)?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_protocol_that_is_offered_must_be_allowed() {
        let only = Upgrades::Only(vec!["websocket".into(), "foo/1".into()]);
        for (offered, allowed) in [
            (vec!["websocket"], true),
            (vec!["WebSocket"], true),
            (vec!["foo/1", "websocket"], true),
            (vec!["foo"], false),
            (vec!["websocket", "bar"], false),
        ] {
            assert_eq!(only.allow(offered.iter().copied()), allowed, "{offered:?}");
        }
        assert!(Upgrades::Any.allow(["foo"].into_iter()) && !Upgrades::Ignore.allow(["foo"].into_iter()));
        assert!(!Upgrades::Only(Vec::new()).allow(["websocket"].into_iter()));
    }
}
