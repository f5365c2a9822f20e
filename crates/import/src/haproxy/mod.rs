//! HAProxy: frontends, backends and listens. The import carries over the parts that an ambassador needs.

mod acl;
mod backend;
mod bind;
mod globals;
mod health;
mod keywords;
mod listener;
mod options;
mod rules;
mod server;
mod steps;
mod tokens;

use crate::File;
use crate::plan::{Plan, UniqueNames};
use crate::remark::Remarks;
use crate::tree::Unreadable;

pub(crate) use tokens::words;
use tokens::{ConfigLine, ConfigSection};

/// State that the parts of an import share.
pub(crate) struct HaproxyImport {
    pub(crate) plan: Plan,
    pub(crate) sections: Vec<ConfigSection>,
    pub(crate) names: UniqueNames,
    /// Backends that were used, and for what.
    pub(crate) used: Vec<(String, bool, String)>,
}

pub(crate) fn import(files: &[File]) -> Result<Plan, Unreadable> {
    let mut sections = Vec::new();
    for file in files {
        sections.extend(tokens::sections(&file.text, &file.path.display().to_string()));
    }
    if sections.is_empty() {
        let file = files.first().map(|file| file.path.display().to_string()).unwrap_or_default();
        return Err(Unreadable {
            at: crate::tree::FileLine { file: file.into(), line: 0 },
            what: "there is no section such as `frontend` or `listen` in it".to_owned(),
        });
    }
    let mut sections = with_defaults(sections);
    globals::apply(&mut sections);
    let mut cx =
        HaproxyImport { plan: Plan::default(), sections, names: UniqueNames::default(), used: Vec::new() };
    for section in cx.sections.clone() {
        match section.kind.as_str() {
            "frontend" | "listen" => listener::listener(&section, &mut cx),
            "global" => global(&section, &mut cx.plan.remarks),
            "defaults" | "backend" | "userlist" | "cache" => {}
            "resolvers" => cx.plan.remarks.note(
                &section.head.at,
                "names are looked up by `/etc/resolv.conf`, or by the servers of `dns.servers`.",
            ),
            kind => cx
                .plan
                .remarks
                .soft(&section.head.at, format!("the section `{kind}` has no meaning here and is left out.")),
        }
    }
    backend::upstreams(&mut cx);
    Ok(cx.plan)
}

/// Puts the lines of the `defaults` in front of a section before the section's own lines.
fn with_defaults(sections: Vec<ConfigSection>) -> Vec<ConfigSection> {
    let mut defaults: Vec<ConfigSection> = Vec::new();
    let mut out = Vec::new();
    for mut section in sections {
        if section.kind == "defaults" {
            let base =
                section.head.after("from").and_then(|name| defaults.iter().find(|other| other.name == name));
            if let Some(base) = base {
                let mut lines = base.lines.clone();
                lines.append(&mut section.lines);
                section.lines = lines;
            }
            defaults.push(section.clone());
        } else if matches!(section.kind.as_str(), "frontend" | "backend" | "listen") {
            let named = section.head.after("from").map(ToOwned::to_owned);
            let own = match &named {
                Some(name) => defaults.iter().find(|other| other.name == *name),
                None => defaults.last(),
            };
            if let Some(own) = own {
                let mut lines = own.lines.clone();
                lines.append(&mut section.lines);
                section.lines = lines;
            }
        }
        out.push(section);
    }
    out
}

fn global(section: &ConfigSection, remarks: &mut Remarks) {
    for line in &section.lines {
        match line.word(0) {
            "lua-load" | "lua-load-per-thread" => {
                remarks.note(&line.at, "Lua scripts are not run; a rule that calls one says so.");
            }
            "stats" => {
                remarks.note(&line.at, "the admin API is on 127.0.0.1:15000, metrics are on port 15090.");
            }
            "h1-case-adjust" | "h1-case-adjust-file" => {
                remarks.soft(&line.at, "the names of headers go on as they came.");
            }
            "h1-accept-payload-with-any-method" | "h1-do-not-close-on-insecure-transfer-encoding" => {
                remarks.point(&line.at, format!("`{}`: such requests are refused here.", line.word(0)));
            }
            "httpclient.ssl.verify" | "issuers-chain-path" | "ssl-engine" | "ssl-provider" => {
                remarks.soft(&line.at, format!("`{}` is absent.", line.word(0)));
            }
            _ => {}
        }
    }
}

impl ConfigSection {
    /// The last line with this word: later lines override those of `defaults`.
    pub(crate) fn last(&self, word: &str) -> Option<&ConfigLine> {
        self.lines.iter().rev().find(|line| line.word(0) == word)
    }

    /// The section is `disabled`.
    pub(crate) fn is_off(&self) -> bool {
        let last = self.lines.iter().rev().find(|line| matches!(line.word(0), "disabled" | "enabled"));
        last.is_some_and(|line| line.word(0) == "disabled")
    }

    /// The first line that the import doesn't know. It may decide who passes.
    pub(crate) fn unknown(&self) -> Option<&ConfigLine> {
        self.lines.iter().find(|line| !keywords::KNOWN.contains(&line.word(0)))
    }

    /// The line that switches an option on, unless a later `no option` switches it off.
    pub(crate) fn option(&self, name: &str) -> Option<&ConfigLine> {
        let about = |line: &&ConfigLine| {
            let from = usize::from(line.word(0) == "no");
            line.word(from) == "option" && line.word(from + 1) == name
        };
        self.lines.iter().rev().find(about).filter(|line| line.word(0) == "option")
    }

    pub(crate) fn timeout(&self, name: &str) -> Option<String> {
        let line = self.lines.iter().rev().find(|line| line.word(0) == "timeout" && line.word(1) == name)?;
        tokens::time(line.word(2))
    }

    pub(crate) fn is_tcp(&self) -> bool {
        self.last("mode").is_none_or(|line| line.word(1) == "tcp")
    }
}
