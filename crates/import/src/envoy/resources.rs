//! Discovery resources. The import reads them from files only.

use std::path::Path;

use crate::tree::{self, Node};

use super::EnvoyImport;

/// The path of a source that is a file.
fn path(source: &Node) -> Option<&str> {
    source.down(&["path_config_source"]).str("path").or_else(|| source.str("path"))
}

/// The resources of a source that names a file. `None` if the file is missing.
pub(crate) fn of(source: &Node, cx: &EnvoyImport) -> Option<Vec<Node>> {
    let path = path(source)?;
    let found = read(path, &cx.folder)?;
    cx.found.borrow_mut().extend(found.iter().cloned());
    Some(found.iter().flat_map(|root| root.list("resources").to_vec()).collect())
}

/// A path is relative to the working directory as in Envoy, or else to the folder of the bootstrap. An absolute path
/// that exists only in the container is also looked up in that folder.
fn read(path: &str, folder: &Path) -> Option<Vec<Node>> {
    let given = Path::new(path);
    let name = given.file_name()?;
    let relative = path.trim_start_matches('/');
    for candidate in [given.to_path_buf(), folder.join(relative), folder.join(name)] {
        if let Ok(text) = std::fs::read_to_string(&candidate) {
            return tree::parse(&text, &candidate.display().to_string()).ok();
        }
    }
    None
}

/// A secret with this name, from the file that its source names, from the bootstrap, or from another imported file.
pub(crate) fn secret(reference: &Node, cx: &EnvoyImport) -> Option<Node> {
    let name = reference.str("name").unwrap_or_default();
    let named = |secrets: &[Node]| {
        let only = secrets.len() == 1;
        secrets.iter().find(|secret| secret.str("name") == Some(name) || only).cloned()
    };
    if let Some(source) = reference.get("sds_config")
        && let Some(found) = of(source, cx)
    {
        return named(&found);
    }
    cx.secrets.iter().find(|secret| secret.str("name") == Some(name)).cloned()
}
