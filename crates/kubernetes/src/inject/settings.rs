//! The settings of an injection. Each is a flag of `attache inject` and `attache webhook`, and an annotation
//! `attache.dev/NAME` of the pod (template), which takes precedence.

use attache_config::model::{Bind, Config};
use serde_json::{Map, Value};

use super::{extra, names::is_name};
use crate::object::PodTemplate;

/// The prefix of all annotations and labels of attache.
pub const PREFIX: &str = "attache.dev/";

/// attache's ports.
pub(crate) const OUTBOUND: u16 = 15001;
pub(crate) const INBOUND: u16 = 15006;
pub(crate) const PROBES: u16 = 15090;
/// The port on which attache answers rewritten probes of the app.
pub const APP_PROBES: u16 = 15020;

/// Every setting: its name, its form, its meaning. [`InjectionSettings::default`] has the defaults.
pub const SETTINGS: &[(&str, &str, &str)] = &[
    ("image", "IMAGE", "attache's image; the default image is in no public registry yet, so name your own"),
    ("image-pull-policy", "POLICY", "Always, IfNotPresent or Never; the cluster's default without it"),
    (
        "mode",
        "native|container",
        "native: an init container that continues to run (Kubernetes 1.29 and later); container: an ordinary container",
    ),
    (
        "traffic",
        "explicit|http-proxy|transparent",
        "explicit: the app is pointed at localhost:15001 by its own settings; http-proxy: HTTP_PROXY is set in its containers; transparent: the kernel redirects its connections",
    ),
    ("config-map", "NAME[/KEY]", "the config is in this ConfigMap; the key is attache.yaml unless given"),
    ("config", "YAML", "the config itself"),
    ("tls-secret", "NAME", "Secret with tls.crt, tls.key and ca.crt, mounted at /certs"),
    (
        "spiffe-socket",
        "csi[/NAME]|PATH",
        "the SPIFFE Workload API: by the SPIFFE CSI driver (the socket is spire-agent.sock unless named), or by a socket of the node; SPIFFE_ENDPOINT_SOCKET names it",
    ),
    (
        "service-account-token",
        "true|false",
        "a token of the pod's service account for attache's container alone, which `kubernetes://` addresses need where the pod mounts none (automountServiceAccountToken: false)",
    ),
    (
        "upgrade",
        "true|false",
        "a folder for upgrades in the running pod, by `attache upgrade` in an ephemeral container",
    ),
    (
        "env",
        "YAML",
        "more variables of attache's container: a mapping of names to texts, or a list as in a pod",
    ),
    (
        "volumes",
        "YAML",
        "more volumes of attache's container: a list as in a pod, each with its mountPath; one without a source is the pod's own of that name",
    ),
    ("image-pull-secrets", "NAMES", "Secrets to pull attache's image with, added to the pod's"),
    ("log", "LEVEL", "log level"),
    ("cpu-request", "QUANTITY", "CPU that is reserved; none leaves it out"),
    ("memory-request", "QUANTITY", "memory that is reserved; none leaves it out"),
    ("cpu-limit", "QUANTITY", "most CPU; none is no limit"),
    ("memory-limit", "QUANTITY", "most memory; none is no limit"),
    ("uid", "NUMBER", "user and group of attache; the app must run as another user"),
    ("prometheus", "true|false", "announce attache's metrics by prometheus.io annotations"),
    ("no-proxy", "HOSTS", "with http-proxy: hosts that the app calls directly"),
    ("inbound", "true|false", "with transparent: calls to the app are redirected, too"),
    ("exclude-outbound-ports", "PORTS", "with transparent: destination ports that are called directly"),
    ("exclude-outbound-cidrs", "CIDRS", "with transparent: destination networks that are called directly"),
    ("exclude-inbound-ports", "PORTS", "with transparent: ports of the app that are reached directly"),
    (
        "rewrite-probes",
        "true|false",
        "with transparent and inbound: the kubelet probes attache, and attache probes the app inside the pod",
    ),
    (
        "pre-stop",
        "SECONDS",
        "in mode container: how long attache continues to serve while the app ends; native needs none",
    ),
];

/// Where attache runs in a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContainerMode {
    /// An init container with `restartPolicy: Always`.
    Native,
    /// A container beside the app's.
    Container,
}

/// How the app's calls reach attache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrafficMode {
    /// By the app's own settings.
    Explicit,
    /// By `HTTP_PROXY`.
    HttpProxy,
    /// By the kernel.
    Transparent,
}

/// All settings, checked.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "SETTINGS says what each is")]
pub struct InjectionSettings {
    pub image: String,
    pub image_pull_policy: Option<String>,
    pub mode: ContainerMode,
    pub traffic: TrafficMode,
    pub config_map: Option<(String, String)>,
    pub config: Option<String>,
    pub tls_secret: Option<String>,
    pub spiffe_socket: Option<String>,
    pub service_account_token: bool,
    pub upgrade: bool,
    pub env: Vec<Value>,
    pub volumes: Vec<Value>,
    pub image_pull_secrets: Vec<String>,
    pub log: String,
    pub cpu_request: Option<String>,
    pub memory_request: Option<String>,
    pub cpu_limit: Option<String>,
    pub memory_limit: Option<String>,
    pub uid: u32,
    pub prometheus: bool,
    pub no_proxy: String,
    pub inbound: bool,
    pub exclude_outbound_ports: String,
    pub exclude_outbound_cidrs: String,
    pub exclude_inbound_ports: String,
    pub rewrite_probes: bool,
    pub pre_stop: u32,
    /// Where pod templates are in kinds that attache doesn't know. There is no annotation for this.
    pub pod_templates: Vec<PodTemplate>,
}

/// The image that attache's releases will have.
const IMAGE: &str = concat!("ghcr.io/attache-proxy/attache:", env!("CARGO_PKG_VERSION"));
/// The warning if pods would get that image, which is not published yet.
pub const UNNAMED_IMAGE: &str = "no --image is given, and the default is in no public registry yet: pods start only where the nodes have an image of that name. \
     Build one (`docker build -f deploy/Dockerfile`), push it, and name it";

impl Default for InjectionSettings {
    fn default() -> Self {
        let quantity = |text: &str| Some(text.to_owned());
        Self {
            image: IMAGE.to_owned(),
            image_pull_policy: None,
            mode: ContainerMode::Native,
            traffic: TrafficMode::Explicit,
            config_map: None,
            config: None,
            tls_secret: None,
            spiffe_socket: None,
            service_account_token: false,
            upgrade: false,
            env: Vec::new(),
            volumes: Vec::new(),
            image_pull_secrets: Vec::new(),
            log: "info".to_owned(),
            cpu_request: quantity("50m"),
            memory_request: quantity("64Mi"),
            cpu_limit: quantity("200m"),
            memory_limit: quantity("256Mi"),
            uid: 1337,
            prometheus: true,
            no_proxy: "localhost,127.0.0.1,::1,169.254.169.254".to_owned(),
            inbound: true,
            exclude_outbound_ports: String::new(),
            exclude_outbound_cidrs: String::new(),
            exclude_inbound_ports: String::new(),
            rewrite_probes: true,
            pre_stop: 5,
            pod_templates: Vec::new(),
        }
    }
}

impl InjectionSettings {
    /// Whether the image is the default.
    pub fn has_unnamed_image(&self) -> bool {
        self.image == IMAGE
    }

    /// Sets one by its name in [`SETTINGS`].
    ///
    /// # Errors
    /// What is wrong with the value, or that there is no such setting.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let value = if matches!(name, "config" | "env" | "volumes") { value } else { value.trim() };
        let wrong = |expected: &str| Err(format!("`{value}` isn't {expected}"));
        match name {
            "image" if value.is_empty() || value.contains(char::is_whitespace) => {
                return wrong("the name of an image");
            }
            "image" => value.clone_into(&mut self.image),
            "image-pull-policy" => match value {
                "Always" | "IfNotPresent" | "Never" => self.image_pull_policy = Some(value.to_owned()),
                _ => return wrong("Always, IfNotPresent or Never"),
            },
            "mode" => match value {
                "native" => self.mode = ContainerMode::Native,
                "container" => self.mode = ContainerMode::Container,
                _ => return wrong("native or container"),
            },
            "traffic" => match value {
                "explicit" => self.traffic = TrafficMode::Explicit,
                "http-proxy" | "http_proxy" => self.traffic = TrafficMode::HttpProxy,
                "transparent" => self.traffic = TrafficMode::Transparent,
                _ => return wrong("explicit, http-proxy or transparent"),
            },
            "config-map" => {
                let (map, key) = value.split_once('/').unwrap_or((value, "attache.yaml"));
                if !is_name(map) || key.is_empty() {
                    return wrong("the name of a ConfigMap, or NAME/KEY");
                }
                self.config_map = Some((map.to_owned(), key.to_owned()));
                self.config = None;
            }
            "config" => {
                check_config(value)?;
                self.config = Some(value.to_owned());
                self.config_map = None;
            }
            "tls-secret" if is_name(value) => self.tls_secret = Some(value.to_owned()),
            "tls-secret" => return wrong("the name of a Secret"),
            "spiffe-socket" => match socket(value) {
                Some(_) => self.spiffe_socket = Some(value.to_owned()),
                None => {
                    return wrong(
                        "csi, csi/NAME, or the path of a socket, such as /run/spire/sockets/agent.sock",
                    );
                }
            },
            "service-account-token" => self.service_account_token = boolean(value)?,
            "upgrade" => self.upgrade = boolean(value)?,
            "env" => self.env = extra::env(value)?,
            "volumes" => self.volumes = extra::volumes(value)?,
            "image-pull-secrets" => {
                let names = list(value, is_name)?;
                self.image_pull_secrets =
                    names.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
            }
            "log" if value.is_empty() => return wrong("a log level"),
            "log" => value.clone_into(&mut self.log),
            "cpu-request" => self.cpu_request = quantity(value)?,
            "memory-request" => self.memory_request = quantity(value)?,
            "cpu-limit" => self.cpu_limit = quantity(value)?,
            "memory-limit" => self.memory_limit = quantity(value)?,
            "uid" => match value.parse() {
                Ok(uid @ 1..=0x7fff_ffff) => self.uid = uid,
                _ => return wrong("the number of a user other than root"),
            },
            "prometheus" => self.prometheus = boolean(value)?,
            "no-proxy" => value.clone_into(&mut self.no_proxy),
            "inbound" => self.inbound = boolean(value)?,
            "exclude-outbound-ports" => self.exclude_outbound_ports = list(value, is_ports)?,
            "exclude-outbound-cidrs" => self.exclude_outbound_cidrs = list(value, is_network)?,
            "exclude-inbound-ports" => self.exclude_inbound_ports = list(value, is_ports)?,
            "rewrite-probes" => self.rewrite_probes = boolean(value)?,
            "pre-stop" => match value.parse() {
                Ok(seconds @ 0..=3600) => self.pre_stop = seconds,
                _ => return wrong("a number of seconds up to 3600"),
            },
            _ => return Err(format!("there is no setting `{name}`")),
        }
        Ok(())
    }

    /// Every setting's value as a text, in the order of [`SETTINGS`]; empty if it has none.
    pub fn shown(&self) -> Vec<(&'static str, String)> {
        let quantity = |text: &Option<String>| text.clone().unwrap_or_else(|| "none".to_owned());
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let value = |name: &str| match name {
            "image" => self.image.clone(),
            "image-pull-policy" => text(&self.image_pull_policy),
            "mode" => match self.mode {
                ContainerMode::Native => "native".to_owned(),
                ContainerMode::Container => "container".to_owned(),
            },
            "traffic" => match self.traffic {
                TrafficMode::Explicit => "explicit".to_owned(),
                TrafficMode::HttpProxy => "http-proxy".to_owned(),
                TrafficMode::Transparent => "transparent".to_owned(),
            },
            "config-map" => {
                self.config_map.as_ref().map_or_else(String::new, |(map, key)| format!("{map}/{key}"))
            }
            "config" => text(&self.config),
            "tls-secret" => text(&self.tls_secret),
            "spiffe-socket" => text(&self.spiffe_socket),
            "service-account-token" => self.service_account_token.to_string(),
            "upgrade" => self.upgrade.to_string(),
            "env" => extra::shown(&self.env),
            "volumes" => extra::shown(&self.volumes),
            "image-pull-secrets" => self.image_pull_secrets.join(","),
            "log" => self.log.clone(),
            "cpu-request" => quantity(&self.cpu_request),
            "memory-request" => quantity(&self.memory_request),
            "cpu-limit" => quantity(&self.cpu_limit),
            "memory-limit" => quantity(&self.memory_limit),
            "uid" => self.uid.to_string(),
            "prometheus" => self.prometheus.to_string(),
            "no-proxy" => self.no_proxy.clone(),
            "inbound" => self.inbound.to_string(),
            "exclude-outbound-ports" => self.exclude_outbound_ports.clone(),
            "exclude-outbound-cidrs" => self.exclude_outbound_cidrs.clone(),
            "exclude-inbound-ports" => self.exclude_inbound_ports.clone(),
            "rewrite-probes" => self.rewrite_probes.to_string(),
            "pre-stop" => self.pre_stop.to_string(),
            _ => String::new(),
        };
        SETTINGS.iter().map(|(name, ..)| (*name, value(name))).collect()
    }

    /// These settings, changed by a pod's annotations; and the annotations that attache doesn't know.
    pub(crate) fn with(&self, annotations: &Map<String, Value>) -> Result<(Self, Vec<String>), String> {
        let mut settings = self.clone();
        let mut unknown = Vec::new();
        for (key, value) in annotations {
            let Some(name) = key.strip_prefix(PREFIX) else { continue };
            if name == "inject" || name == "injected" {
                continue;
            }
            if !SETTINGS.iter().any(|(known, ..)| *known == name) {
                unknown.push(key.clone());
                continue;
            }
            let Some(value) = value.as_str() else {
                return Err(format!("the annotation `{key}` isn't a text: put it in quotes"));
            };
            settings.set(name, value).map_err(|wrong| format!("the annotation `{key}`: {wrong}"))?;
        }
        Ok((settings, unknown))
    }

    /// Whether calls to this port of the app aren't redirected.
    pub(crate) fn reached_directly(&self, port: u16) -> bool {
        self.exclude_inbound_ports.split(',').any(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            matches!((first.parse(), last.parse()), (Ok(first), Ok(last)) if (first..=last).contains(&port))
        })
    }

    /// Whether both the app's calls and the calls to it are intercepted.
    pub(crate) fn intercepts_inbound(&self) -> bool {
        self.traffic == TrafficMode::Transparent && self.inbound
    }
}

/// Checks a config for an annotation, as far as that is possible here.
///
/// # Errors
/// Everything that is wrong with it.
fn check_config(text: &str) -> Result<(), String> {
    parsed(text).map_or(Ok(()), |parsed| parsed.map(drop))
}

/// The config; `None` if it needs files or variables that only the pod has.
pub(crate) fn parsed(text: &str) -> Option<Result<Config, String>> {
    let own = |name: &str| match name {
        "POD_IP" | "HOST_IP" => Some("10.0.0.1".to_owned()),
        "POD_NAME" | "POD_NAMESPACE" | "POD_SERVICE_ACCOUNT" | "NODE_NAME" => Some("name".to_owned()),
        _ => None,
    };
    if text.contains("!file") {
        return None;
    }
    Some(attache_config::parse(text, None, &own).map_err(|found| format!("the config is wrong\n{found}")))
}

/// The listener of a config with this port; `None` if there is none.
pub(crate) fn listener_at(config: &Config, port: u16) -> Option<&attache_config::model::Listener> {
    let at = |bind: &Bind| matches!(bind, Bind::Tcp(address) if address.port() == port);
    config.listeners.iter().find(|listener| listener.bind.iter().any(at))
}

fn boolean(value: &str) -> Result<bool, String> {
    match value {
        "true" | "yes" | "enabled" => Ok(true),
        "false" | "no" | "disabled" => Ok(false),
        _ => Err(format!("`{value}` isn't true or false")),
    }
}

/// A quantity of Kubernetes: digits, and a unit.
fn quantity(value: &str) -> Result<Option<String>, String> {
    if value == "none" {
        return Ok(None);
    }
    let unit = value.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let number = value.strip_suffix(unit).unwrap_or_default();
    let known = ["", "m", "k", "M", "G", "T", "Ki", "Mi", "Gi", "Ti"].contains(&unit);
    if known && number.parse::<f64>().is_ok() {
        Ok(Some(value.to_owned()))
    } else {
        Err(format!("`{value}` isn't a quantity such as 50m, 0.5, 64Mi, or none"))
    }
}

/// The Workload API of `spiffe-socket`: its folder on the node (`None`: the CSI driver's), and its name there.
pub(crate) fn socket(text: &str) -> Option<(Option<&str>, &str)> {
    let is_file = |name: &str| !name.is_empty() && !name.contains('/') && name != "." && name != "..";
    if let Some(rest) = text.strip_prefix("csi") {
        let name = if rest.is_empty() { "spire-agent.sock" } else { rest.strip_prefix('/')? };
        return is_file(name).then_some((None, name));
    }
    let (folder, name) = text.strip_prefix("unix://").unwrap_or(text).rsplit_once('/')?;
    (folder.starts_with('/') && is_file(name) && !folder.split('/').any(|part| part == ".."))
        .then_some((Some(folder), name))
}

fn list(value: &str, item: fn(&str) -> bool) -> Result<String, String> {
    let items: Vec<&str> = value.split(',').map(str::trim).filter(|item| !item.is_empty()).collect();
    match items.iter().find(|text| !item(text)) {
        Some(wrong) => {
            Err(format!("`{wrong}` isn't what is listed here (9000, 9000-9100; 10.0.0.0/8; name)"))
        }
        None => Ok(items.join(",")),
    }
}

fn is_ports(text: &str) -> bool {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    matches!((first.parse::<u16>(), last.parse::<u16>()), (Ok(first), Ok(last)) if 0 < first && first <= last)
}

fn is_network(text: &str) -> bool {
    let (address, bits) = text.split_once('/').unwrap_or((text, "0"));
    address.parse::<std::net::IpAddr>().is_ok_and(|address| {
        bits.parse::<u8>().is_ok_and(|bits| bits <= if address.is_ipv4() { 32 } else { 128 })
    })
}
