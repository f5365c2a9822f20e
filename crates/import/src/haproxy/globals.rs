//! Settings of `global` for every address and server: folders of certificates, and the defaults of TLS.

use super::tokens::{ConfigLine, ConfigSection};

/// Writes the defaults of `global` into the lines that they are for.
pub(super) fn apply(sections: &mut [ConfigSection]) {
    let global: Vec<ConfigLine> = sections
        .iter()
        .filter(|section| section.kind == "global")
        .flat_map(|section| section.lines.clone())
        .collect();
    let word = |name: &str| {
        global.iter().rev().find(|line| line.word(0) == name).map(|line| line.word(1).to_owned())
    };
    let rest = |name: &str| {
        global
            .iter()
            .rev()
            .find(|line| line.word(0) == name)
            .map(|line| line.rest(1).to_vec())
            .unwrap_or_default()
    };
    let (authorities, certificates) = (word("ca-base"), word("crt-base"));
    let (of_binds, mut of_servers) = (rest("ssl-default-bind-options"), rest("ssl-default-server-options"));
    if word("ssl-server-verify").as_deref() == Some("none") {
        of_servers.extend(["verify".to_owned(), "none".to_owned()]);
    }
    for section in sections {
        if matches!(section.kind.as_str(), "global" | "defaults") {
            continue;
        }
        for line in &mut section.lines {
            if !matches!(line.word(0), "bind" | "server" | "default-server" | "server-template") {
                continue;
            }
            based(line, "crt", certificates.as_deref());
            for key in ["ca-file", "ca-verify-file", "crl-file"] {
                based(line, key, authorities.as_deref());
            }
            if line.word(0) == "bind" && line.has("ssl") {
                // The address's own words come before the defaults.
                line.words.extend(of_binds.iter().cloned());
            }
        }
        let first =
            section.lines.iter().find(|line| line.word(0).contains("server")).map(|line| line.at.clone());
        if let Some(at) = first.filter(|_| !of_servers.is_empty()) {
            let words = ["default-server".to_owned()].into_iter().chain(of_servers.iter().cloned()).collect();
            section.lines.insert(0, ConfigLine { at, words });
        }
    }
}

fn based(line: &mut ConfigLine, key: &str, folder: Option<&str>) {
    let Some(folder) = folder else { return };
    for index in 1..line.words.len() {
        if line.words[index - 1] == key && !line.words[index].starts_with(['/', '@']) {
            line.words[index] = format!("{}/{}", folder.trim_end_matches('/'), line.words[index]);
        }
    }
}
