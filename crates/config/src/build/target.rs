//! Names of upstreams become indices.

use std::sync::Arc;

use super::{
    DeclaredNames, among,
    credential::Confidentiality,
    policy::{self, PolicyLevel},
};
use crate::{
    diagnostic::{Place, Problems},
    index::FirstByKey,
    model::{
        self, Action, Address, Destination, DestinationsForm, EndpointSource, ListenProtocol, Listener, Name,
        Policy, Traffic, Upstream, UpstreamId, UpstreamProtocol,
    },
    shapes::{Spanned, Text},
    text::{Label, Scheme, SplitWeight},
    yaml::{YamlKind, YamlNode},
};

/// Facts about the upstreams.
pub(crate) struct Targets {
    known: Vec<UpstreamTraits>,
    /// Where each name is in `known`.
    index: FirstByKey<Name, usize>,
    /// Names in the file; errors in them were already reported.
    written: Vec<String>,
    places: FirstByKey<String, Place>,
    /// Issuers of tokens.
    pub(crate) issuers: DeclaredNames,
    pub(crate) authorizers: DeclaredNames,
    /// `upstreams` itself can't be read.
    unreadable: bool,
}

struct UpstreamTraits {
    name: Name,
    payload: Payload,
    confidentiality: Confidentiality,
    layer: PolicyLevel,
    /// The labels of each of its addresses.
    labels: Vec<Vec<(Name, Name)>>,
    /// One of its addresses is a Service of Kubernetes.
    kubernetes: bool,
    used: bool,
}

/// What may be sent to an upstream, by its address and protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Payload {
    Http,
    Opaque,
    /// `unix:`, `srv:` or `kubernetes:` without a protocol: the listener's protocol decides.
    Either,
    Named,
    Original,
}

impl Payload {
    pub(crate) fn of(upstream: &Upstream, scheme: Scheme) -> Self {
        match (upstream.protocol, scheme, &upstream.address) {
            (UpstreamProtocol::Tcp, ..) => Self::Opaque,
            (.., Address::Authority { .. }) => Self::Named,
            (UpstreamProtocol::Http1 | UpstreamProtocol::Http2, ..) => Self::Http,
            (.., Address::OriginalDestination) => Self::Original,
            (_, Scheme::Open, _) => Self::Either,
            _ => Self::Http,
        }
    }

    /// The traffic on a listener with this protocol. `passthrough`: TLS is passed through to it.
    const fn on(self, protocol: ListenProtocol, passthrough: bool) -> Traffic {
        let opaque = passthrough || matches!(protocol, ListenProtocol::Tcp | ListenProtocol::Tls);
        match self {
            Self::Opaque => Traffic::Opaque,
            // Nothing on such a listener is about HTTP.
            Self::Either | Self::Original if opaque => Traffic::Opaque,
            Self::Http | Self::Either => Traffic::Http,
            Self::Named => Traffic::Named,
            Self::Original => Traffic::Original,
        }
    }
}

impl Targets {
    pub(crate) fn new(tree: &YamlNode) -> Self {
        let upstreams = tree.get("upstreams");
        let unreadable = upstreams.is_some_and(|node| !matches!(node.kind, YamlKind::Mapping(_)));
        let written = || upstreams.into_iter().flat_map(YamlNode::keys);
        Self {
            known: Vec::new(),
            index: FirstByKey::default(),
            written: written().map(|(name, _)| name.to_owned()).collect(),
            places: written().map(|(name, at)| (name.to_owned(), at)).collect(),
            issuers: DeclaredNames::default(),
            authorizers: DeclaredNames::default(),
            unreadable,
        }
    }

    /// Adds an upstream. Its index is the number of upstreams that were added before.
    pub(crate) fn add(&mut self, upstream: &Upstream, layer: PolicyLevel, payload: Payload) {
        let name = upstream.name.clone();
        let sources: &[_] = match &upstream.address {
            Address::Endpoints(sources) => sources,
            _ => &[],
        };
        let kubernetes =
            |source: &EndpointSource| matches!(source.target, model::EndpointTarget::Kubernetes(_));
        self.index.keep(name.clone(), self.known.len());
        self.known.push(UpstreamTraits {
            name,
            payload,
            confidentiality: Confidentiality::of(upstream),
            layer,
            labels: sources.iter().map(|source| source.labels.clone()).collect(),
            kubernetes: sources.iter().any(kubernetes),
            used: false,
        });
    }

    /// The index of a name. For `None` an error was reported, here or in the upstream itself.
    pub(crate) fn find(&mut self, name: &str, at: Place, problems: &mut Problems) -> Option<UpstreamId> {
        let index = self.index.get(name).copied();
        if let Some((index, target)) = index.and_then(|index| Some((index, self.known.get_mut(index)?))) {
            target.used = true;
            return Some(UpstreamId(index));
        }
        if self.unreadable || self.places.has(name) {
            return None;
        }
        let help =
            among(name, &self.written, problems, || format!("add it: `upstreams: {{ {name}: https://… }}`"));
        problems.wrong(at, format!("there is no upstream `{name}`"), help);
        None
    }

    /// The labels of the endpoints of each of its addresses.
    pub(crate) fn labels(&self, id: UpstreamId) -> &[Vec<(Name, Name)>] {
        self.known.get(id.0).map_or(&[], |target| &target.labels)
    }

    /// True if its endpoints come from EndpointSlices, which don't contain the labels of pods.
    pub(crate) fn is_kubernetes(&self, id: UpstreamId) -> bool {
        self.known.get(id.0).is_some_and(|target| target.kubernetes)
    }

    pub(crate) fn is_opaque(&self, id: UpstreamId) -> bool {
        self.known.get(id.0).is_some_and(|target| target.payload == Payload::Opaque)
    }

    /// True if the requests name its host.
    pub(crate) fn is_on_demand(&self, id: UpstreamId) -> bool {
        self.known
            .get(id.0)
            .is_some_and(|target| matches!(target.payload, Payload::Named | Payload::Original))
    }

    pub(crate) fn is_http(&self, id: UpstreamId) -> bool {
        self.known.get(id.0).is_some_and(|target| target.payload == Payload::Http)
    }

    /// Sets for each route what its upstreams take; where they differ, HTTP alone.
    pub(crate) fn set_traffic(&self, listener: &mut Listener) {
        for route in &mut listener.routes {
            let Action::Forward(forward) = &mut route.action else { continue };
            let targets = forward.to.iter().filter_map(|to| self.known.get(to.upstream.0));
            let mut all = targets.map(|target| target.payload.on(listener.protocol, forward.passes_tls()));
            let first = all.next().unwrap_or_default();
            forward.traffic = if all.all(|other| other == first) { first } else { Traffic::Http };
        }
    }

    pub(crate) fn name(&self, id: UpstreamId) -> &str {
        self.known.get(id.0).map_or("", |target| &target.name)
    }

    /// All of them, marked as used.
    pub(crate) fn all(&mut self) -> Vec<UpstreamId> {
        self.known.iter_mut().for_each(|target| target.used = true);
        (0..self.known.len()).map(UpstreamId).collect()
    }

    /// Whether the file names upstreams that can't be used.
    pub(crate) fn some_are_wrong(&self) -> bool {
        self.unreadable || self.written.len() > self.known.len()
    }

    /// Deadlines and retries of a route to an upstream.
    pub(crate) fn policy(
        &self,
        id: UpstreamId,
        route: Option<&PolicyLevel>,
        problems: &mut Problems,
    ) -> Arc<Policy> {
        let target = self.known.get(id.0);
        // The upstream's own credential was checked with the upstream.
        if let (Some(target), Some((credential, at))) = (target, route.and_then(PolicyLevel::credential)) {
            target.confidentiality.check(credential, &target.name, at, problems);
        }
        if let Some(target) = target.filter(|target| target.payload == Payload::Opaque) {
            for at in
                [Some(&target.layer), route].into_iter().flatten().filter_map(PolicyLevel::retries_by_answer)
            {
                problems.wrong(
                    at,
                    format!(
                        "opaque bytes to `{}` have no response that a retry could depend on",
                        target.name
                    ),
                    "`retry: { on: [connect-failure] }`, or an HTTP scheme in the address",
                );
            }
        }
        Arc::new(policy::resolve(target.map(|target| &target.layer), route, problems))
    }

    /// The destinations of a `to`.
    pub(crate) fn split(
        &mut self,
        to: &Spanned<DestinationsForm>,
        route: Option<&PolicyLevel>,
        by_header: bool,
        problems: &mut Problems,
    ) -> Option<Vec<Destination>> {
        let entries = match &to.value {
            DestinationsForm::One(name) => {
                let upstream = self.find(&name.0, to.at, problems)?;
                let policy = self.policy(upstream, route, problems);
                return Some(vec![Destination { upstream, weight: 1, policy }]);
            }
            DestinationsForm::Several(names) => {
                return self.several(names, to.at, route, by_header, problems);
            }
            DestinationsForm::Split(map) => &map.entries,
        };
        if by_header {
            let help = "the header chooses, so list the upstreams: `to: [orders, billing]`";
            problems.wrong(to.at, "weights together with `upstream_header`", help);
        }
        let weights: Vec<SplitWeight> = entries.iter().map(|entry| entry.value.value.0).collect();
        let weights = relative(&weights);
        let mut destinations = Vec::new();
        let mut complete = true;
        for (index, entry) in entries.iter().enumerate() {
            match self.find(&entry.key, entry.at, problems) {
                Some(upstream) => {
                    let policy = self.policy(upstream, route, problems);
                    let weight = weights.as_ref().ok().and_then(|all| all.get(index)).copied().unwrap_or(1);
                    destinations.push(Destination { upstream, weight, policy });
                }
                None => complete = false,
            }
        }
        if let Err((what, help)) = weights {
            if to.whole() {
                problems.wrong(to.at, what, help);
            }
            return None;
        }
        complete.then_some(destinations)
    }

    /// The destinations of which a header names one.
    fn several(
        &mut self,
        names: &[Spanned<Text<Label>>],
        at: Place,
        route: Option<&PolicyLevel>,
        by_header: bool,
        problems: &mut Problems,
    ) -> Option<Vec<Destination>> {
        // For an empty list, another error is reported below.
        if !by_header && !names.is_empty() {
            let help =
                "`upstream_header: x-upstream` on the route, or weights: `{ orders: 95%, orders-next: 5% }`";
            problems.wrong(at, "it is not clear which of these upstreams a request is for", help);
        }
        let found: Vec<Option<UpstreamId>> =
            names.iter().map(|name| self.find(&name.value.0, name.at, problems)).collect();
        let mut seen = FirstByKey::default();
        for name in names {
            if seen.keep(name.value.0.clone(), ()).is_some() {
                problems.wrong(name.at, format!("`{}` is named twice", name.value.0), "keep one of them");
            }
        }
        let found: Vec<UpstreamId> = found.into_iter().collect::<Option<_>>().filter(|_| by_header)?;
        if found.is_empty() {
            problems.wrong(at, "this route has no upstream", "`to: [orders, billing]`");
            return None;
        }
        let destination =
            |upstream| Destination { upstream, weight: 1, policy: self.policy(upstream, route, problems) };
        Some(found.into_iter().map(destination).collect())
    }

    pub(crate) fn warn_unused(&self, problems: &mut Problems) {
        for target in self.known.iter().filter(|target| !target.used) {
            problems.warn(
                self.places.get(&*target.name).copied().unwrap_or_default(),
                format!("no route leads to the upstream `{}`", target.name),
                "name it in a `to`, or remove it",
            );
        }
    }
}

/// Percentages or plain weights as whole numbers.
fn relative(weights: &[SplitWeight]) -> Result<Vec<u32>, (String, String)> {
    let help = "`{ orders: 95%, orders-next: 5% }` or `{ orders: 19, orders-next: 1 }`".to_owned();
    if weights.is_empty() {
        return Err(("this split has no upstream".into(), help));
    }
    let percents: Vec<f64> = weights
        .iter()
        .filter_map(|weight| if let SplitWeight::Percent(p) = weight { Some(*p) } else { None })
        .collect();
    if percents.is_empty() {
        let plain: Vec<u32> =
            weights.iter().map(|weight| if let SplitWeight::Plain(w) = weight { *w } else { 0 }).collect();
        // The sum of the weights must fit into 32 bits.
        let sum: u64 = plain.iter().map(|weight| u64::from(*weight)).sum();
        return match sum {
            0 => Err(("all weights of this split are zero".into(), help)),
            sum if sum > u64::from(u32::MAX) => Err(("the weights of this split are too large".into(), help)),
            _ => Ok(plain),
        };
    }
    if percents.len() < weights.len() {
        return Err(("this split mixes percentages and plain weights".into(), help));
    }
    let sum: f64 = percents.iter().sum();
    if (sum - 100.0).abs() > 0.001 {
        let sum = (sum * 1000.0).round() / 1000.0;
        return Err((format!("the percentages of this split sum to {sum}%, not to 100%"), help));
    }
    let scale = if percents.iter().all(|percent| percent.fract() == 0.0) { 1.0 } else { 1000.0 };
    Ok(percents.iter().map(|percent| (percent * scale).round() as u32).collect())
}
