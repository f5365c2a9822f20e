//! More variables and volumes of attache's container, as YAML or JSON in a setting.

use serde_json::{Map, Value, json};

use super::names::{CERTS, CONFIG, OWN_VARIABLES, OWN_VOLUMES, SPIFFE, TOKEN, UPGRADE, is_name};

/// The variables: a mapping of names to texts, or a list of `EnvVar`.
///
/// # Errors
/// What is wrong with them.
pub(super) fn env(text: &str) -> Result<Vec<Value>, String> {
    let variables: Vec<Value> = match one(text)? {
        Value::Null => Vec::new(),
        Value::Object(entries) => entries
            .into_iter()
            .map(|(name, value)| match value {
                Value::String(text) => Ok(json!({"name": name, "value": text})),
                Value::Number(_) | Value::Bool(_) => Ok(json!({"name": name, "value": value.to_string()})),
                _ => Err(format!("the variable `{name}` isn't a text")),
            })
            .collect::<Result<_, _>>()?,
        Value::Array(items) => items,
        _ => return Err("this isn't a mapping of names to texts, such as `{LEVEL: debug}`".to_owned()),
    };
    for variable in &variables {
        let name = variable.get("name").and_then(Value::as_str).ok_or("a variable has no name")?;
        // The API server accepts every printable character except `=`.
        if name.is_empty() || !name.bytes().all(|b| (0x20..0x7f).contains(&b) && b != b'=') {
            return Err(format!("`{name}` isn't the name of a variable"));
        }
        if OWN_VARIABLES.contains(&name) {
            return Err(format!("the variable `{name}` is set by attache itself"));
        }
        let known = variable
            .as_object()
            .is_some_and(|all| all.keys().all(|key| matches!(key.as_str(), "name" | "value" | "valueFrom")));
        let texts = variable.get("value").is_none_or(Value::is_string);
        if !known || !texts || variable.get("value").is_some() == variable.get("valueFrom").is_some() {
            return Err(format!("the variable `{name}` needs a text as its `value`, or `valueFrom`"));
        }
    }
    Ok(variables)
}

/// The volumes, each with its mount path.
///
/// # Errors
/// What is wrong with them.
pub(super) fn volumes(text: &str) -> Result<Vec<Value>, String> {
    let volumes = match one(text)? {
        Value::Null => Vec::new(),
        Value::Array(items) => items,
        _ => {
            return Err(
                "this isn't a list of volumes, such as `[{name: ca, mountPath: /ca, secret: {secretName: ca}}]`"
                    .to_owned(),
            );
        }
    };
    let mut paths = Vec::new();
    for volume in &volumes {
        let text = |key: &str| volume.get(key).and_then(Value::as_str);
        let name = text("name").filter(|name| is_name(name) && !name.contains('.') && name.len() <= 63);
        let name = name.ok_or_else(|| format!("{volume} has no name as volumes have"))?;
        if OWN_VOLUMES.contains(&name) {
            return Err(format!("the volume `{name}` is attache's own"));
        }
        let path = text("mountPath").filter(|path| path.starts_with('/') && !path.contains(':'));
        let path = path.ok_or_else(|| format!("the volume `{name}` has no mountPath that begins with /"))?;
        if [CONFIG, CERTS, SPIFFE, TOKEN, UPGRADE].contains(&path) || paths.contains(&path) {
            return Err(format!("the volume `{name}` is mounted at {path}, where another is"));
        }
        paths.push(path);
        if split(volume).0.as_object().is_some_and(|source| source.len() > 2) {
            return Err(format!("the volume `{name}` has more than one source"));
        }
    }
    Ok(volumes)
}

/// A volume as an entry of the pod (only with its name, if it has no source), and as a mount of a container.
pub(super) fn split(volume: &Value) -> (Value, Value) {
    let (mut source, mut mount) = (Map::new(), Map::new());
    for (key, value) in volume.as_object().into_iter().flatten() {
        let of_mount =
            ["mountPath", "readOnly", "subPath", "subPathExpr", "mountPropagation", "recursiveReadOnly"];
        if key == "name" {
            source.insert(key.clone(), value.clone());
            mount.insert(key.clone(), value.clone());
        } else if of_mount.contains(&key.as_str()) {
            mount.insert(key.clone(), value.clone());
        } else {
            source.insert(key.clone(), value.clone());
        }
    }
    (source.into(), mount.into())
}

/// The items in one line.
pub(super) fn shown(items: &[Value]) -> String {
    if items.is_empty() { String::new() } else { Value::from(items.to_vec()).to_string() }
}

fn one(text: &str) -> Result<Value, String> {
    let mut documents = crate::yaml::parse(text)?;
    match (documents.pop(), documents.is_empty()) {
        (document, true) => Ok(document.map_or(Value::Null, |document| document.value)),
        _ => Err("this is more than one document".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_a_mapping_or_a_list() {
        assert_eq!(
            env("{A: b, N: 1}").unwrap(),
            [json!({"name": "A", "value": "b"}), json!({"name": "N", "value": "1"})]
        );
        let list = "- name: A\n  valueFrom: {secretKeyRef: {name: s, key: k}}\n";
        assert_eq!(env(list).unwrap().len(), 1);
        for (wrong, says) in [
            ("A=b", "isn't a mapping"),
            ("{A: [b]}", "isn't a text"),
            ("[{value: b}]", "no name"),
            ("[{name: A}]", "needs a text"),
            ("[{name: A, value: 1}]", "needs a text"),
            ("{POD_IP: x}", "by attache itself"),
            ("{A=: x}", "isn't the name"),
            ("[", "not valid YAML"),
        ] {
            let error = env(wrong).unwrap_err();
            assert!(error.contains(says), "{wrong}: {error}");
        }
    }

    #[test]
    fn volumes_have_a_name_a_place_and_at_most_one_source() {
        assert_eq!(
            volumes("[{name: ca, mountPath: /ca, secret: {secretName: ca}}, {name: own, mountPath: /own}]")
                .unwrap()
                .len(),
            2
        );
        for (wrong, says) in [
            ("{}", "isn't a list"),
            ("[{mountPath: /a}]", "no name"),
            ("[{name: a}]", "no mountPath"),
            ("[{name: a, mountPath: a}]", "no mountPath"),
            ("[{name: a, mountPath: /certs}]", "where another is"),
            ("[{name: attache-config, mountPath: /a}]", "attache's own"),
            ("[{name: a, mountPath: /a, emptyDir: {}, secret: {}}]", "more than one source"),
        ] {
            let error = volumes(wrong).unwrap_err();
            assert!(error.contains(says), "{wrong}: {error}");
        }
    }
}
