//! A listener's changes to the answers that attache makes itself.

use super::{Problems, route};
use crate::{
    diagnostic::Place,
    model::{LocalReply, Template, TemplatePart, Variable},
    section::ParsedSection,
    shapes::Spanned,
};

/// The header changes of a listener's own answers. They can use only data that every exchange has: a request that could
/// not be parsed has no headers and no captures.
pub(super) fn local_reply(raw: Spanned<ParsedSection<LocalReply>>, problems: &mut Problems) -> LocalReply {
    let (given, ParsedSection { rest, .. }) = raw.open();
    let at = given.at;
    let headers = route::edits(rest.headers, &route::CapturedNames::unknown(), false, problems);
    let changed = headers.set.iter().chain(&headers.add);
    for name in changed.clone().map(|(name, _)| name).chain(&headers.remove) {
        check_name(name.as_str(), at, problems);
    }
    for (name, Template(parts)) in changed {
        for part in parts {
            if let TemplatePart::Variable(Variable::Header(_) | Variable::Capture(_) | Variable::Scheme) =
                part
            {
                problems.wrong(
                    at,
                    format!("`{name}` has a variable that attache's own answers don't have"),
                    "`client.*`, `request.host`, `request.path`, `request.method`, `request.id`, `route`, `upstream` and `listener` are known",
                );
            }
        }
    }
    LocalReply { headers }
}

/// The body is attache's, in a format that the client understands; another type or gRPC status would be wrong.
fn check_name(name: &str, at: Place, problems: &mut Problems) {
    if name == "content-type" || name == "content-encoding" || name.starts_with("grpc-") {
        let message = format!("`{name}` describes the body of attache's own answers and can't be changed");
        problems.wrong(at, message, "leave it out");
    }
}
