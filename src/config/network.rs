//! Network access: host names, connection limits, access to metrics. CORS is in `cors`.

use std::time::Duration;

use clap::builder::BoolishValueParser;
use clap::{ArgAction, Args};

use super::ApiKey;
use super::api_key::api_key;
use super::cors::{CorsArguments, CorsConfig};
use super::counts::at_least_one;
use super::seconds::{Seconds, some_seconds};

/// Options that mean nothing where there is no server.
pub(super) const OPTIONS: [&str; 12] = [
    "allowed_hosts",
    "allowed_origins",
    "allowed_methods",
    "allowed_headers",
    "allow_credentials",
    "enable_tokenizer_info_endpoint",
    "max_connections",
    "max_connections_per_address",
    "send_timeout",
    "metrics_key",
    "metrics_host",
    "metrics_port",
];

/// Network access settings.
#[derive(Clone, Debug)]
pub struct NetworkConfig {
    /// Names of this server besides the loopback's; given, they are checked on every address.
    pub allowed_hosts: Vec<String>,
    /// Pages of other sites.
    pub cors: CorsConfig,
    /// Whether clients may see the tokenizer's settings and the chat template.
    pub tells_tokenizer: bool,
    /// Connections at a time; `None` is as many as the process has room for.
    pub max_connections: Option<usize>,
    /// Most connections from one address; `None` means no limit.
    pub max_connections_per_address: Option<usize>,
    /// Maximum time without progress while sending a response.
    pub send_timeout: Duration,
    /// Keys for the metrics only.
    pub metrics_keys: Vec<ApiKey>,
    /// Where to serve metrics and probes alone.
    pub metrics_address: Option<(String, u16)>,
}

#[derive(Debug, Args)]
pub(super) struct NetworkArguments {
    /// Name by which clients reach this server, such as med.example.org or *.example.org; may be
    /// repeated or separated by commas. On a loopback address only localhost, 127.0.0.1, [::1] and
    /// these are accepted, which prevents DNS rebinding. On other addresses names are checked once
    /// some are given. /health, /livez and /ready accept any name
    #[arg(
        long,
        value_name = "NAME",
        env = "MEDGEMMA_ALLOWED_HOSTS",
        value_delimiter = ',',
        value_parser = host_name,
        help_heading = "Network"
    )]
    pub(super) allowed_hosts: Vec<String>,

    #[command(flatten)]
    pub(super) cors: CorsArguments,

    /// Serve /tokenizer_info, with the tokenizer's settings and the chat template
    #[arg(
        long,
        value_name = "BOOL",
        env = "MEDGEMMA_ENABLE_TOKENIZER_INFO_ENDPOINT",
        default_value = "false",
        default_missing_value = "true",
        num_args = 0..=1,
        require_equals = true,
        action = ArgAction::Set,
        value_parser = BoolishValueParser::new(),
        help_heading = "Network"
    )]
    pub(super) enable_tokenizer_info_endpoint: bool,

    /// Maximum number of connections. At the limit, a new connection replaces the longest idle one;
    /// if none is idle, it gets 503 [default: what the limit of open files leaves, at most 16384]
    #[arg(
        long,
        value_name = "COUNT",
        env = "MEDGEMMA_MAX_CONNECTIONS",
        value_parser = at_least_one,
        help_heading = "Network"
    )]
    pub(super) max_connections: Option<usize>,

    /// Maximum number of connections from one address (IPv6: from one /64). A reverse proxy counts
    /// as one address [default: no separate limit]
    #[arg(
        long,
        value_name = "COUNT",
        env = "MEDGEMMA_MAX_CONNECTIONS_PER_ADDRESS",
        value_parser = at_least_one,
        help_heading = "Network"
    )]
    pub(super) max_connections_per_address: Option<usize>,

    /// Maximum time without progress while sending a response; then the connection is closed and
    /// the request aborted
    #[arg(
        long,
        value_name = "SECONDS",
        env = "MEDGEMMA_SEND_TIMEOUT",
        default_value = "60",
        value_parser = some_seconds,
        help_heading = "Network"
    )]
    pub(super) send_timeout: Seconds,

    /// Key for /metrics only; may be repeated. With several API keys, /metrics accepts only these
    /// keys, since it covers all clients
    #[arg(
        long,
        value_name = "KEY",
        env = "MEDGEMMA_METRICS_KEY",
        value_parser = api_key,
        help_heading = "Network"
    )]
    pub(super) metrics_key: Vec<ApiKey>,

    /// Address for --metrics-port
    #[arg(
        long,
        value_name = "HOST",
        env = "MEDGEMMA_METRICS_HOST",
        default_value = "127.0.0.1",
        help_heading = "Network"
    )]
    pub(super) metrics_host: String,

    /// Additional port that serves only /metrics and the probes. They need no key there, unless
    /// --metrics-key is set; 0 takes a free one
    #[arg(
        long,
        value_name = "PORT",
        env = "MEDGEMMA_METRICS_PORT",
        help_heading = "Network"
    )]
    pub(super) metrics_port: Option<u16>,
}

impl NetworkArguments {
    pub(super) fn resolve(self) -> NetworkConfig {
        NetworkConfig {
            allowed_hosts: self.allowed_hosts,
            cors: self.cors.resolve(),
            tells_tokenizer: self.enable_tokenizer_info_endpoint,
            max_connections: self.max_connections,
            max_connections_per_address: self.max_connections_per_address,
            send_timeout: self.send_timeout.0,
            metrics_keys: self.metrics_key,
            metrics_address: self.metrics_port.map(|port| (self.metrics_host, port)),
        }
    }
}

fn host_name(text: &str) -> Result<String, String> {
    let text = text.trim();
    let rest = text.strip_prefix("*.").unwrap_or(text);
    let is_v6 = rest.starts_with('[') && rest.ends_with(']');
    let is_name = !rest.is_empty() && !rest.contains(['/', ':', '@', ' ', '*']);
    match is_name || is_v6 || text == "*" {
        true => Ok(text.to_owned()),
        false => Err(
            "it must be a name or an address alone, without scheme and port: med.example.org, \
             *.example.org, 10.0.0.5, [fd00::1]"
                .to_owned(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_alone() {
        for name in [
            "med",
            "med.example.org",
            "*.example.org",
            "*",
            "10.0.0.5",
            "[fd00::1]",
        ] {
            assert!(host_name(name).is_ok(), "{name}");
        }
        for wrong in ["", "http://med", "med:80", "a b", "*med", "fd00::1", "med/"] {
            assert!(host_name(wrong).is_err(), "{wrong}");
        }
    }
}
