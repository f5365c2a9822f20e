//! Names of services. Short names are completed with the namespace of the object that contains them.

/// The domain of services.
const CLUSTER: &str = "svc.cluster.local";

/// The full name of a host: `reviews` in namespace `shop` is `reviews.shop.svc.cluster.local`. A name with a dot or `*` is full.
pub(crate) fn whole(host: &str, namespace: &str) -> String {
    let host = host.to_ascii_lowercase();
    if host.contains(['.', '*']) { host } else { format!("{host}.{namespace}.{CLUSTER}") }
}

/// The name and namespace of a service of the cluster.
pub(crate) fn service(host: &str) -> Option<(&str, &str)> {
    let (name, namespace) = host.strip_suffix(CLUSTER)?.strip_suffix('.')?.split_once('.')?;
    (!name.contains('*') && !namespace.contains(['.', '*'])).then_some((name, namespace))
}

/// The names by which an application in `own` calls a host.
pub(crate) fn spellings(host: &str, own: &str) -> Vec<String> {
    match service(host) {
        None => vec![host.to_owned()],
        Some((name, namespace)) => {
            let mut all =
                vec![host.to_owned(), format!("{name}.{namespace}.svc"), format!("{name}.{namespace}")];
            if namespace == own {
                all.push(name.to_owned());
            }
            all
        }
    }
}

/// Whether a pattern (`*.shop.svc.cluster.local`, `*`) or name matches a host.
pub(crate) fn takes(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some(rest) => host.ends_with(rest),
        None => pattern == host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_name_is_of_the_objects_own_namespace() {
        assert_eq!(whole("reviews", "shop"), "reviews.shop.svc.cluster.local");
        assert_eq!(whole("reviews.shop", "x"), "reviews.shop");
        assert_eq!(whole("*", "x"), "*");
        assert_eq!(spellings("reviews.shop.svc.cluster.local", "shop").len(), 4);
        assert_eq!(spellings("reviews.shop.svc.cluster.local", "web").len(), 3);
        assert_eq!(spellings("api.example.com", "web"), ["api.example.com"]);
        assert_eq!(service("a.b.c.svc.cluster.local"), None);
    }
}
