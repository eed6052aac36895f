//! Variables with our prefix that set no key: mistakes worth a warning, or Kubernetes describing its services.

use super::keys::{KEYS, Key};
use super::load::nearest;

/// Prefix of the variables that belong to us.
pub(super) const PREFIX: &str = "HEIMDALL_";

/// The key that `variable` sets.
pub(super) fn key_of(variable: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.variable() == variable)
}

/// One warning for each variable that looks like ours and sets nothing, naming the one that may have been meant.
///
/// They are not errors: whoever starts the process may set variables for a service called `heimdall-uring`, as
/// Kubernetes does; its patterns are passed over in silence.
#[must_use]
pub fn stray_variables(environment: &[(String, String)]) -> Vec<String> {
    let strays = environment.iter().filter(|(name, value)| {
        name.starts_with(PREFIX) && key_of(name).is_none() && !is_of_a_service(name, value)
    });
    let known: Vec<String> = KEYS.iter().map(Key::variable).collect();
    let warn = |(name, _): &(String, String)| {
        // The part that all have in common makes no two of them alike.
        let ends = known.iter().filter_map(|known| known.strip_prefix(PREFIX));
        let end = name.strip_prefix(PREFIX).unwrap_or(name);
        let meant = nearest(end, ends).map(|end| format!("; did you mean \"{PREFIX}{end}\"?"));
        let name: String = name.chars().take(80).collect();
        let meant = meant.unwrap_or_default();
        format!("environment: variable \"{name}\" is unknown and sets nothing{meant}")
    };
    strays.map(warn).collect()
}

/// Whether Kubernetes sets such a variable in every pod beside a service: `X_SERVICE_HOST`, `X_SERVICE_PORT`,
/// `X_SERVICE_PORT_NAME`, and, as Docker's links did, `X_PORT`, `X_PORT_53_UDP` and its `_PROTO`, `_PORT` and `_ADDR`.
fn is_of_a_service(name: &str, value: &str) -> bool {
    if name.ends_with("_SERVICE_HOST") || name.ends_with("_SERVICE_PORT") {
        return true;
    }
    if name.ends_with("_PORT") && value.contains("://") {
        return true;
    }
    name.contains("_SERVICE_PORT_")
        || name.match_indices("_PORT_").any(|(at, part)| is_port(&name[at + part.len()..]))
}

/// `53_UDP` or `53_UDP_ADDR`.
fn is_port(text: &str) -> bool {
    let mut parts = text.split('_');
    let number = parts.next().is_some_and(|number| number.parse::<u16>().is_ok());
    let protocol = parts.next().is_some_and(|name| matches!(name, "TCP" | "UDP" | "SCTP"));
    let detail = parts.next().is_none_or(|name| matches!(name, "PROTO" | "PORT" | "ADDR"));
    number && protocol && detail && parts.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warnings(name: &str, value: &str) -> Vec<String> {
        stray_variables(&[(name.to_owned(), value.to_owned())])
    }

    #[test]
    fn variables_of_kubernetes_services_are_passed_over() {
        for service in ["HEIMDALL", "HEIMDALL_URING", "HEIMDALL_PORT_X", "HEIMDALL_CACHE"] {
            for (rest, value) in [
                ("_SERVICE_HOST", "10.96.0.10"),
                ("_SERVICE_PORT", "53"),
                ("_SERVICE_PORT_DNS_UDP", "53"),
                ("_PORT", "udp://10.96.0.10:53"),
                ("_PORT_53_UDP", "udp://10.96.0.10:53"),
                ("_PORT_53_UDP_PROTO", "udp"),
                ("_PORT_53_TCP_PORT", "53"),
                ("_PORT_53_SCTP_ADDR", "10.96.0.10"),
            ] {
                let name = format!("{service}{rest}");
                assert_eq!(warnings(&name, value), Vec::<String>::new(), "{name}");
            }
        }
    }

    #[test]
    fn other_strays_are_told_with_the_nearest_known_one() {
        let [warning] = &warnings("HEIMDALL_CACHE_SIZ", "1GiB")[..] else { panic!("one warning") };
        assert!(warning.contains("\"HEIMDALL_CACHE_SIZ\" is unknown"), "{warning}");
        assert!(warning.ends_with("did you mean \"HEIMDALL_CACHE_SIZE\"?"), "{warning}");
        let [far] = &warnings("HEIMDALL_NONSENSE", "1")[..] else { panic!("one warning") };
        assert!(far.ends_with("sets nothing"), "{far}");
        for name in
            ["HEIMDALL_X", "HEIMDALL_NODE_PORT", "HEIMDALL_PORT_53", "HEIMDALL_PORT_1_UDP_X_Y"]
        {
            assert_eq!(warnings(name, "53").len(), 1, "{name}");
        }
        assert_eq!(warnings("PATH", "/bin"), Vec::<String>::new());
    }

    #[test]
    fn no_key_is_taken_for_a_service() {
        for key in KEYS {
            assert!(!is_of_a_service(&key.variable(), "udp://192.0.2.1:53"), "{key:?}");
            assert_eq!(warnings(&key.variable(), ""), Vec::<String>::new());
        }
    }
}
