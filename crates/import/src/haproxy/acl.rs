//! ACLs and conditions: a list of alternatives, of which one must hold.

use crate::gate;
use crate::hosted;
use crate::path::PlannedPath;
use crate::plan::RuleConditions;

use super::tokens::ConfigLine;

/// One alternative: hosts and other conditions that must all hold, and alternatives that must not hold.
#[derive(Clone, Debug, Default)]
pub(crate) struct AclAlternative {
    pub(crate) hosts: Vec<String>,
    pub(crate) when: RuleConditions,
    pub(crate) not: Vec<AclAlternative>,
}

impl AclAlternative {
    fn any() -> Self {
        Self {
            when: RuleConditions { path: PlannedPath::Any, ..RuleConditions::default() },
            ..Self::default()
        }
    }
}

/// The alternative that holds if both hold. `Some(None)`: never. `None`: it can't be expressed.
#[allow(clippy::option_option)]
pub(crate) fn both(a: &AclAlternative, b: &AclAlternative) -> Option<Option<AclAlternative>> {
    let Some(when) = gate::both(&a.when, &b.when)? else { return Some(None) };
    let Some(hosts) = hosted::both(&a.hosts, &b.hosts) else { return Some(None) };
    let not = a.not.iter().chain(&b.not).cloned().collect();
    Some(Some(AclAlternative { hosts, when, not }))
}

/// Named ACLs of a section: each name with its lines.
pub(crate) struct Acls<'l> {
    pub(crate) lines: Vec<&'l ConfigLine>,
    pub(crate) port: &'static str,
    /// The ACLs belong to a frontend: paths are normalised before the ACLs are evaluated.
    pub(crate) in_front: bool,
}

impl Acls<'_> {
    /// The alternatives of `if …` or `unless …`. `None` if they can't be expressed.
    pub(crate) fn condition(&self, words: &[String]) -> Option<Vec<AclAlternative>> {
        let (keyword, rest) = words.split_first()?;
        let terms = self.disjunction(rest)?;
        match keyword.as_str() {
            "if" => Some(terms),
            "unless" => Some(vec![AclAlternative { not: terms, ..AclAlternative::any() }]),
            _ => None,
        }
    }

    fn disjunction(&self, words: &[String]) -> Option<Vec<AclAlternative>> {
        let mut out = Vec::new();
        for part in words.split(|word| word == "||" || word == "or") {
            let mut all = vec![AclAlternative::any()];
            let mut rest = part;
            while let Some((first, behind)) = rest.split_first() {
                let (negated, name) =
                    first.strip_prefix('!').map_or((false, first.as_str()), |name| (true, name));
                let (negated, name, behind) = if name.is_empty() {
                    let (name, behind) = behind.split_first()?;
                    (negated, name.as_str(), behind)
                } else {
                    (negated, name, behind)
                };
                let terms = if name == "{" {
                    let end = behind.iter().position(|word| word == "}")?;
                    rest = behind.get(end + 1..)?;
                    self.test(behind.get(..end)?)?
                } else {
                    rest = behind;
                    self.named(name)?
                };
                if negated {
                    all.iter_mut().for_each(|term| term.not.extend(terms.iter().cloned()));
                } else {
                    let mut next = Vec::new();
                    for a in &all {
                        for b in &terms {
                            next.extend(both(a, b)?);
                        }
                    }
                    all = next;
                }
            }
            out.extend(all);
        }
        Some(out)
    }

    fn named(&self, name: &str) -> Option<Vec<AclAlternative>> {
        let always = match name {
            "TRUE" | "HTTP" => Some(vec![AclAlternative::any()]),
            "FALSE" => Some(Vec::new()),
            "METH_GET" => Some(vec![methods(&["GET", "HEAD"])]),
            "METH_POST" => Some(vec![methods(&["POST"])]),
            "METH_OPTIONS" => Some(vec![methods(&["OPTIONS"])]),
            "METH_PUT" => Some(vec![methods(&["PUT"])]),
            "METH_DELETE" => Some(vec![methods(&["DELETE"])]),
            _ => None,
        };
        if always.is_some() {
            return always;
        }
        let lines: Vec<_> = self.lines.iter().filter(|line| line.word(1) == name).collect();
        if lines.is_empty() {
            return None;
        }
        let mut out = Vec::new();
        for line in lines {
            out.extend(self.test(line.rest(2))?);
        }
        Some(out)
    }

    /// A sample with flags and patterns: `path_beg -i /static /img`.
    fn test(&self, words: &[String]) -> Option<Vec<AclAlternative>> {
        // The line has an environment variable.
        if words.iter().any(|word| word.contains('\0')) {
            return None;
        }
        let (sample, rest) = words.split_first()?;
        let sample = sample.replace("field(1,:)", "host_only");
        let mut folded = false;
        let mut matching = None;
        let mut patterns: Vec<&str> = Vec::new();
        let mut rest = rest.iter();
        while let Some(word) = rest.next() {
            match word.as_str() {
                "-i" => folded = true,
                "-m" => matching = rest.next().map(String::as_str),
                "--" => patterns.extend(rest.by_ref().map(String::as_str)),
                "-f" | "-M" | "-n" | "-u" => return None,
                pattern => patterns.push(pattern),
            }
        }
        let (fetch, converters) = sample.split_once(',').unwrap_or((&sample, ""));
        let mut bare_host = false;
        for converter in converters.split(',').filter(|converter| !converter.is_empty()) {
            match converter {
                // After `lower`, a pattern with capital letters never matches.
                "lower" => {
                    if !folded && matching != Some("reg") {
                        patterns.retain(|pattern| !pattern.bytes().any(|b| b.is_ascii_uppercase()));
                    }
                    folded = true;
                }
                "host_only" => bare_host = true,
                _ => return None,
            }
        }
        let (name, argument) = match fetch.split_once('(') {
            Some((name, argument)) => (name, argument.trim_end_matches(')')),
            None => (fetch, ""),
        };
        let is_host = argument.eq_ignore_ascii_case("host");
        if bare_host && !is_host {
            return None;
        }
        let (base, suffix) = kind(name);
        let matching = matching.or(suffix).unwrap_or("str");
        match base {
            "path" => self.paths(matching, &patterns, folded),
            // A URL includes the query, and may include a scheme and a host.
            "url"
                if matching == "beg"
                    && patterns.iter().all(|pattern| pattern.starts_with('/') && !pattern.contains('?')) =>
            {
                self.paths(matching, &patterns, folded)
            }
            "method" => Some(vec![methods(&patterns)]),
            "hdr" | "req.hdr" | "req.fhdr" if is_host => self.hosts(matching, &patterns, bare_host),
            "req.ssl_sni" | "ssl_fc_sni" => None,
            "hdr" | "req.hdr" | "req.fhdr" if !argument.is_empty() && !argument.contains(',') => {
                header(&argument.to_ascii_lowercase(), matching, &patterns, folded, base != "req.fhdr")
            }
            "hdr_cnt" | "req.hdr_cnt" => None,
            "url_param" | "urlp" => {
                let pattern = value(matching, &patterns, folded)?;
                let mut term = AclAlternative::any();
                term.when.query.push((argument.to_owned(), pattern));
                Some(vec![term])
            }
            "ssl_fc" => Some(if self.port == "443" { vec![AclAlternative::any()] } else { Vec::new() }),
            "always_true" => Some(vec![AclAlternative::any()]),
            "always_false" => Some(Vec::new()),
            _ => None,
        }
    }

    fn paths(&self, matching: &str, patterns: &[&str], folded: bool) -> Option<Vec<AclAlternative>> {
        let _ = self;
        let mut out = Vec::new();
        for pattern in patterns {
            let inner = regex::escape(pattern);
            let path = match matching {
                "str" => PlannedPath::Exact((*pattern).to_owned()),
                "beg" => PlannedPath::prefix(pattern),
                "end" => PlannedPath::Regex(format!(".*{inner}")),
                "sub" => PlannedPath::Regex(format!(".*{inner}.*")),
                "dir" => PlannedPath::Regex(format!(
                    "(?:.*/)?{}(?:/.*)?",
                    regex::escape(pattern.trim_matches('/'))
                )),
                "reg" => PlannedPath::Regex(crate::path::anywhere(pattern)?),
                _ => return None,
            };
            let path = if folded { PlannedPath::Regex(format!("(?i:{})", path.expression())) } else { path };
            out.push(AclAlternative {
                when: RuleConditions { path, ..RuleConditions::default() },
                ..AclAlternative::default()
            });
        }
        Some(out)
    }

    fn hosts(&self, matching: &str, patterns: &[&str], bare: bool) -> Option<Vec<AclAlternative>> {
        let mut hosts = Vec::new();
        let name = |text: &str| {
            !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
        };
        for pattern in patterns {
            let pattern = pattern.to_ascii_lowercase();
            match matching {
                "str" => {
                    let (host, port) = pattern
                        .rsplit_once(':')
                        .map_or((pattern.as_str(), None), |(host, port)| (host, Some(port)));
                    if !name(host) {
                        return None;
                    }
                    hosts.push(match port {
                        Some(port) => format!("{host}:{port}"),
                        None if bare => host.to_owned(),
                        None => format!("{host}:{}", self.port),
                    });
                }
                "beg" if name(pattern.strip_suffix('.')?) => hosts.push(format!("{pattern}*")),
                "end" if name(pattern.strip_prefix('.')?) => {
                    hosts.push(if bare {
                        format!("*{pattern}")
                    } else {
                        format!("*{pattern}:{}", self.port)
                    });
                }
                _ => return None,
            }
        }
        Some(vec![AclAlternative { hosts, ..AclAlternative::any() }])
    }
}

/// `path_beg` is `path` with the matching `beg`.
fn kind(name: &str) -> (&str, Option<&str>) {
    for suffix in ["beg", "end", "sub", "dir", "reg", "dom", "len", "str"] {
        if let Some(base) = name.strip_suffix(suffix).and_then(|base| base.strip_suffix('_')) {
            return (base, Some(suffix));
        }
    }
    if name == "hdr_val" { ("hdr", Some("val")) } else { (name, None) }
}

fn methods(names: &[&str]) -> AclAlternative {
    let mut term = AclAlternative::any();
    term.when.methods = names.iter().map(|name| (*name).to_owned()).collect();
    term
}

/// A condition on a header. With `list`, each value between commas is compared by itself.
fn header(
    name: &str,
    matching: &str,
    patterns: &[&str],
    folded: bool,
    list: bool,
) -> Option<Vec<AclAlternative>> {
    let mut term = AclAlternative::any();
    let mut pattern = value(matching, patterns, folded)?;
    if list && matching != "found" {
        let inner = match pattern.strip_prefix('~') {
            Some(regex) => regex.to_owned(),
            None => format!("(?:{})", regex::escape(pattern.strip_prefix('=').unwrap_or(&pattern))),
        };
        pattern = format!("~(?:.*,)?[ \\t]*{inner}[ \\t]*(?:,.*)?");
    }
    term.when.headers.push((name.to_owned(), pattern));
    Some(vec![term])
}

fn value(matching: &str, patterns: &[&str], folded: bool) -> Option<String> {
    if matching == "found" {
        return Some("*".to_owned());
    }
    let each: Option<Vec<String>> = patterns
        .iter()
        .map(|pattern| {
            let inner = regex::escape(pattern);
            Some(match matching {
                "str" => inner,
                "beg" => format!("{inner}.*"),
                "end" => format!(".*{inner}"),
                "sub" => format!(".*{inner}.*"),
                "reg" => crate::path::anywhere(pattern)?,
                _ => return None,
            })
        })
        .collect();
    let each = each?;
    match (each.as_slice(), patterns) {
        ([_], [only]) if matching == "str" && !folded => Some(crate::text::exact(only)),
        ([], _) => None,
        (all, _) => Some(format!("~(?{}:{})", if folded { "i" } else { "" }, all.join("|"))),
    }
}
