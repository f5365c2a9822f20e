//! How an explanation is shown to a person.

use std::fmt;

use crate::{
    explain::{Explanation, RouteVerdict},
    words::percent,
};

/// `name (line 7)`, or the name alone.
struct WithLine<'a>(&'a str, u32);

impl fmt::Display for WithLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.1 {
            0 => f.write_str(self.0),
            line => write!(f, "{} (line {line})", self.0),
        }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_path(f)?;
        if !self.local_reply.is_empty() {
            writeln!(f, "\nanswers that attache makes itself, such as refusals:")?;
        }
        self.local_reply.iter().try_for_each(|line| writeln!(f, "  response header: {line}"))
    }
}

impl Explanation {
    fn write_path(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.request)?;
        writeln!(f, "listener {}", WithLine(&self.listener, self.listener_line))?;
        writeln!(f, "\nroutes, the most specific first:")?;
        for candidate in &self.candidates {
            let (mark, verdict) = match candidate.verdict {
                RouteVerdict::NoMatch => (' ', "no"),
                RouteVerdict::Wins => ('>', "yes"),
                RouteVerdict::LessSpecific => (' ', "would match too, but"),
            };
            writeln!(
                f,
                "{mark} {}: {verdict}: {}",
                WithLine(&candidate.route, candidate.line),
                candidate.why
            )?;
        }
        match self.other_hosts {
            0 => {}
            1 => writeln!(f, "  1 more route is for other hosts")?,
            more => writeln!(f, "  {more} more routes are for other hosts")?,
        }
        for access in &self.access {
            writeln!(f, "\naccess rules of {}: {}", access.whose, access.decision)?;
            access.rules.iter().try_for_each(|rule| writeln!(f, "  {rule}"))?;
        }
        if self.access.iter().any(|access| !access.allowed) {
            return writeln!(f, "\nanswered with denied-by-rule");
        }
        let Some(outcome) = &self.outcome else {
            writeln!(f, "\nno route matches: answered with no-route")?;
            return self.no_route.iter().try_for_each(|why| writeln!(f, "  {why}"));
        };
        writeln!(f, "\n{}", outcome.action)?;
        for share in &outcome.destinations {
            writeln!(f, "  {} to upstream {}", percent(share.ratio), WithLine(&share.upstream, share.line))?;
            if !share.host.is_empty() {
                writeln!(f, "    host: {} ({})", share.host, share.host_is)?;
            }
            for (what, value) in [
                ("timeouts", &*share.timeouts),
                ("retries", &*share.retries),
                ("admission", &*share.admission),
                ("unhealthy endpoints", share.unhealthy),
            ] {
                if !value.is_empty() {
                    writeln!(f, "    {what}: {value}")?;
                }
            }
        }
        if let Some(fault) = &outcome.fault {
            writeln!(f, "  {fault}")?;
        }
        for line in &outcome.endpoints {
            writeln!(f, "  {line}")?;
        }
        for line in &outcome.browsers {
            writeln!(f, "  {line}")?;
        }
        for limit in &outcome.limits {
            writeln!(f, "  limited to {limit}")?;
        }
        for mirror in &outcome.mirrors {
            writeln!(f, "  a copy to upstream {mirror}")?;
        }
        if let Some(path) = &outcome.path {
            writeln!(f, "  path becomes {path}")?;
        }
        for (what, lines) in [("request", &outcome.request_headers), ("response", &outcome.response_headers)]
        {
            for line in lines {
                writeln!(f, "  {what} header: {line}")?;
            }
        }
        Ok(())
    }
}
