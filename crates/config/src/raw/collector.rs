//! What `tracing` and `otlp` both say of a collector, declared once.

use super::{At, Map, Txt};
use crate::{
    model,
    section::Read,
    text::{HeaderText, Positive, Word},
};

/// What both sections say of a collector, but its URL.
pub(crate) struct CollectorKeys {
    pub(crate) protocol: Option<model::ExportProtocol>,
    pub(crate) compression: Option<model::OtlpCompression>,
    pub(crate) tls: Option<At<Read<model::TlsClient>>>,
    pub(crate) headers: Option<Map<HeaderText, At<Txt<Word>>>>,
    pub(crate) service: Option<Txt<Word>>,
    pub(crate) resource: Option<Map<Word, Txt<Word>>>,
    pub(crate) timeout: Option<Txt<Positive>>,
}

/// A section with these keys between its own. A macro, since serde's `flatten` would take away the places of keys and the refusal of
/// unknown ones.
macro_rules! with_collector {
    (
        $(#[$meta:meta])*
        $name:ident {
            $($(#[$first_meta:meta])* $first:ident: $first_type:ty,)*
            ..
            $($(#[$last_meta:meta])* $last:ident: $last_type:ty,)*
        }
    ) => {
        #[derive(Debug, Default, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields)]
        $(#[$meta])*
        pub(crate) struct $name {
            $($(#[$first_meta])* pub(crate) $first: $first_type,)*
            /// How it is sent. By default `OTEL_EXPORTER_OTLP_PROTOCOL`; without that, gRPC to port 4317, and `http/protobuf` to any other.
            pub(crate) protocol: Option<model::ExportProtocol>,
            /// How exports are compressed. By default `OTEL_EXPORTER_OTLP_COMPRESSION`.
            #[schemars(extend("default" = "none"))]
            pub(crate) compression: Option<model::OtlpCompression>,
            /// TLS to the collector, where the URL is `https`.
            pub(crate) tls: Option<At<Read<model::TlsClient>>>,
            /// Headers of every export, such as a key. By default `OTEL_EXPORTER_OTLP_HEADERS`.
            #[schemars(extend("examples" = [{ "x-api-key": "${COLLECTOR_KEY}" }]))]
            pub(crate) headers: Option<Map<HeaderText, At<Txt<Word>>>>,
            /// Name of the service. By default `OTEL_SERVICE_NAME`.
            #[schemars(extend("default" = model::Collector::SERVICE))]
            pub(crate) service: Option<Txt<Word>>,
            /// More attributes of the resource, before those of `OTEL_RESOURCE_ATTRIBUTES`.
            #[schemars(extend("examples" = [{ "deployment.environment.name": "test" }]))]
            pub(crate) resource: Option<Map<Word, Txt<Word>>>,
            /// How long an export may take, all attempts together. Then its spans or log records are lost, and metrics are sent with the
            /// next one.
            #[schemars(extend("default" = show_duration(model::Collector::TIMEOUT)))]
            pub(crate) timeout: Option<Txt<Positive>>,
            $($(#[$last_meta])* pub(crate) $last: $last_type,)*
        }

        impl $name {
            /// Takes what is said of the collector.
            pub(crate) fn take_collector(&mut self) -> CollectorKeys {
                CollectorKeys {
                    protocol: self.protocol.take(),
                    compression: self.compression.take(),
                    tls: self.tls.take(),
                    headers: self.headers.take(),
                    service: self.service.take(),
                    resource: self.resource.take(),
                    timeout: self.timeout.take(),
                }
            }
        }
    };
}
pub(crate) use with_collector;
