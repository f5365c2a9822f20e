//! The secrets for requests: each is read once, and all workers and users share it.

use std::{collections::HashMap, sync::Arc};

use attache_config::model::{self, Action, Config, Name};
use attache_tls::{CredentialHeader, FileWatcher};

use crate::error::Error;

/// All secrets of a config, by their settings in the config.
#[derive(Clone, Debug, Default)]
pub(crate) struct Credentials(Arc<HashMap<Arc<model::Credential>, CredentialHeader>>);

impl Credentials {
    /// Reads the files that `before` doesn't have, and makes `watcher` follow them. It fails if a required file can't be used.
    pub(crate) fn read(config: &Config, before: &Self, watcher: &FileWatcher) -> Result<Self, Error> {
        let mut all = HashMap::new();
        let upstreams = config
            .upstreams
            .iter()
            .filter_map(|upstream| Some(("upstream", &upstream.name, upstream.credential.as_ref()?)));
        let routes = config.listeners.iter().flat_map(|listener| &listener.routes).flat_map(|route| {
            let to: &[_] = match &route.action {
                Action::Forward(forward) => &forward.to,
                Action::Redirect(_) | Action::Respond(_) => &[],
            };
            to.iter().filter_map(|to| Some(("route", &route.name, to.policy.credential.as_ref()?)))
        });
        for (what, name, wanted) in upstreams.chain(routes) {
            if !all.contains_key(wanted) {
                let secret = match before.get(wanted) {
                    Some(known) => known.clone(),
                    None => read(what, name, wanted, watcher)?,
                };
                all.insert(wanted.clone(), secret);
            }
        }
        Ok(Self(Arc::new(all)))
    }

    pub(crate) fn get(&self, wanted: &model::Credential) -> Option<&CredentialHeader> {
        self.0.get(wanted)
    }
}

fn read(
    what: &'static str,
    name: &Name,
    wanted: &model::Credential,
    watcher: &FileWatcher,
) -> Result<CredentialHeader, Error> {
    let secret =
        CredentialHeader::new(wanted).map_err(|source| Error::Tls { what, name: name.clone(), source })?;
    watcher.follow(&secret);
    Ok(secret)
}
