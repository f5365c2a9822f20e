//! Resources that come by discovery: from files, or not at all.

use std::path::Path;

use crate::tree::{self, Node};

use super::Cx;

/// The path of a source that is a file.
fn path(source: &Node) -> Option<&str> {
    source.down(&["path_config_source"]).str("path").or_else(|| source.str("path"))
}

/// The resources of a source that is a file which is there.
pub(crate) fn of(source: &Node, cx: &Cx) -> Option<Vec<Node>> {
    let path = path(source)?;
    let found = read(path, &cx.folder)?;
    cx.found.borrow_mut().extend(found.iter().cloned());
    Some(found.iter().flat_map(|root| root.list("resources").to_vec()).collect())
}

/// A path counts from the working directory as in Envoy, and else from the folder of the bootstrap, as an absolute one does that
/// is only there in the container.
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

/// A secret by its name: of the file that its source names, of the bootstrap, or of a file that was given.
pub(crate) fn secret(reference: &Node, cx: &Cx) -> Option<Node> {
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
