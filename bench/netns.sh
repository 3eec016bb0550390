#!/usr/bin/env bash
# Compares dlnode's all-reduce with gloo's between network namespaces of this machine,
# each behind a link of a limited rate:
#
#   sudo bench/netns.sh [RATE [ARGUMENTS OF allreduce]]      RATE: 1gbit, 10gbit, ... (1gbit)
#   sudo bench/netns.sh 10gbit -rounds 5 -sizes 4MiB
#
#   NODES=4        namespaces, joined by a bridge
#   PYTHON=python3 an interpreter that has torch; empty leaves gloo out
#   BURST=512kb    of the limit: at most so much is sent faster
#   RUN=           a command that is run in bench/ instead of the comparison, with PLACES set
#                  for its ranks, as in RUN='go run ./exactness' NODES=2 bench/netns.sh 1gbit -processes 2
#
# Each end of each veth has a token bucket (tc tbf), so a link carries RATE in each
# direction. A limit is a promise of the kernel's: where it lacks tbf, this says so and
# ends. It counts the headers of Ethernet, IP and TCP as well, those of segments that are
# cut later among them: of packets of 1514 bytes, 1448 are payload, so that nobody can use
# more than 95.6 % of a link.
# All that is made is removed at the end, whatever that is.
set -euo pipefail

rate=${1:-1gbit}
shift || true
nodes=${NODES:-4} burst=${BURST:-512kb} python=${PYTHON-python3}
here=$(cd "$(dirname "$0")" && pwd)
prefix=dlb$$

[ "$(id -u)" = 0 ] || { echo "netns.sh: namespaces take root" >&2; exit 1; }
case $rate in
*gbit) bits=${rate%gbit}G ;;
*mbit) bits=${rate%mbit}M ;;
*) echo "netns.sh: $rate is no rate (want 100mbit, 1gbit, ...)" >&2; exit 2 ;;
esac

cleanup() {
	for ((i = 0; i < nodes; i++)); do ip netns del "$prefix-$i" 2>/dev/null || true; done
	ip link del "$prefix" 2>/dev/null || true
}
trap cleanup EXIT
trap 'exit 130' INT TERM

limit() { # namespace (or "") and device
	tc ${1:+-n "$1"} qdisc add dev "$2" root tbf rate "$rate" burst "$burst" latency 100ms ||
		{ echo "netns.sh: this kernel has no tc tbf, so links cannot be limited here" >&2; exit 1; }
}

ip link add "$prefix" type bridge
ip link set "$prefix" up
places=
for ((i = 0; i < nodes; i++)); do
	ns=$prefix-$i
	ip netns add "$ns"
	ip link add "$prefix.$i" type veth peer name eth0 netns "$ns"
	ip link set "$prefix.$i" master "$prefix" up
	ip -n "$ns" addr add "10.77.0.$((i + 1))/24" dev eth0
	ip -n "$ns" link set eth0 up
	ip -n "$ns" link set lo up
	limit "$ns" eth0
	limit "" "$prefix.$i"
	places+=${places:+,}"ip netns exec $ns=10.77.0.$((i + 1))"
done

cd "$here"
if [ -n "${RUN:-}" ]; then
	# shellcheck disable=SC2086 # a command of several words
	PLACES=$places $RUN "$@"
	exit
fi
go run ./allreduce -places "$places" -nic eth0 -rate "$bits" -worlds "$nodes" -python "$python" -sizes 4MiB,64MiB -seconds 3 "$@"
