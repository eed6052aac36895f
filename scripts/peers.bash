# Sourced by scripts/compare.sh after servers.bash: how the other servers are started, with the configs in benchmarks/peers.
# Its user sets `port`, `upstream_port`, `server_cpu`, `cache_mib`, `entries`.
# shellcheck shell=bash disable=SC2034,SC2154

# What each is called by its makers, and the program that it is.
declare -A titles=([unbound]=Unbound [knot-resolver]='Knot Resolver' [pdns-recursor]='PowerDNS Recursor' [dnsdist]=dnsdist
    [bind]=BIND [dnsmasq]=dnsmasq [node]='this node')
declare -A programs=([unbound]=unbound [knot-resolver]=kresd [pdns-recursor]=pdns_recursor [dnsdist]=dnsdist [bind]=named
    [dnsmasq]=dnsmasq)

# peer_conf SERVER FILE: its config, filled in.
peer_conf() {
    sed -e "s|@ADDRESS@|$home|g; s|@PORT@|$port|g; s|@UPSTREAM_PORT@|$upstream_port|g; s|@WORK@|$work/$1|g" \
        -e "s|@CACHE_MIB@|$cache_mib|g; s|@HALF_CACHE_MIB@|$((cache_mib / 2))|g; s|@ENTRIES@|$entries|g" \
        "benchmarks/peers/$1.conf" >"$2"
}

# launch SERVER: in the background on its CPU, from an empty directory; it will listen on `address`, `port`.
launch() {
    local server=$1 room=$work/$1 on=(taskset -c "$server_cpu")
    rm -rf "$room"
    mkdir "$room"
    address=$home
    if [[ $server == node ]]; then
        HEIMDALL_CACHE_SIZE=${cache_mib}MiB HEIMDALL_CACHE_PREFETCH=false start node "${on[@]}" "$NODE" --cores "$server_cpu" \
            --listen "$home:$port" --upstream "$home:$upstream_port"
        return
    fi
    peer_conf "$server" "$room/$server.conf"
    case $server in
    unbound) start unbound "${on[@]}" unbound -d -c "$room/unbound.conf" ;;
    knot-resolver) start knot-resolver "${on[@]}" kresd -n -c "$room/knot-resolver.conf" "$room" ;;
    pdns-recursor)
        mv "$room/pdns-recursor.conf" "$room/recursor.conf"
        start pdns-recursor "${on[@]}" pdns_recursor --config-dir="$room"
        ;;
    dnsdist) start dnsdist "${on[@]}" dnsdist --supervised --disable-syslog -C "$room/dnsdist.conf" ;;
    bind)
        address=127.0.0.1
        start bind "${on[@]}" named -f -n 1 -c "$room/bind.conf"
        ;;
    dnsmasq) start dnsmasq "${on[@]}" dnsmasq --keep-in-foreground --conf-file="$room/dnsmasq.conf" ;;
    esac
}

# version SERVER: as it says itself.
version() {
    case $1 in
    node) "$NODE" --version ;;
    unbound) unbound -V | head -n 1 ;;
    bind) named -v ;;
    *) "${programs[$1]}" --version 2>&1 | head -n 1 ;;
    esac | grep -oE '[0-9]+\.[0-9]+(\.[0-9]+)?' | head -n 1
}
