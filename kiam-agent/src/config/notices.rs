//! Notices for kiam's flags that have no effect here.

use crate::args::KiamArgs;

/// Returns a line for each such flag that is set.
pub(super) fn of(args: &KiamArgs) -> Vec<String> {
    let KiamArgs {
        iptables,
        iptables_remove,
        host,
        server_address_refresh,
        gateway_timeout_creation,
        grpc_keepalive_permit_without_stream,
        shared,
    } = args;
    shared.notices(&[
        ("--iptables", iptables, "connections are always redirected, without iptables"),
        ("--iptables-remove", iptables_remove, "stopping leaves the node closed; `kiam-agent cleanup` opens it"),
        ("--host (HOST_IP)", host, "connections are not translated, so no address is needed"),
        ("--server-address-refresh", server_address_refresh, "the server's name is resolved at every reconnection"),
        ("--gateway-timeout-creation", gateway_timeout_creation, "the agent starts and stays up without a server"),
        (
            "--grpc-keepalive-permit-without-stream",
            grpc_keepalive_permit_without_stream,
            "idle connections are always checked, with a call that every server allows",
        ),
    ])
}
