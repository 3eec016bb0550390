#!/usr/bin/env bash
# Measures all-reduces among namespaces of this machine, each behind a link, for scaling -check:
#
#   sudo NODES=4 RUN=scaling/places.sh bench/netns.sh 1gbit --rate 1G --kinds bare --json links.json
#
#   DLNODE=        the program; built from this repository if it is not named
#
# It is run by netns.sh, which makes the links and sets PLACES, in bench/. Its arguments are
# those of dlnode bench allreduce.
set -euo pipefail

dlnode=${DLNODE:-} dir=$(mktemp -d) workers=()
cleanup() {
	kill "${workers[@]}" 2>/dev/null || true
	wait
	rm -rf "$dir"
}
trap cleanup EXIT
if [ -z "$dlnode" ]; then
	dlnode=$dir/dlnode
	(cd .. && go build -o "$dlnode" ./cmd/dlnode)
fi

addrs= first=
IFS=, read -ra places <<<"$PLACES"
for p in "${places[@]}"; do
	command=${p%=*} addr=${p##*=}:7950
	$command "$dlnode" bench worker --bind "$addr" --insecure >"$dir/$addr" 2>&1 &
	workers+=($!)
	first=${first:-$command}
	addrs+=${addrs:+,}$addr
done
for p in "${places[@]}"; do # a worker says that it is there
	tries=0
	until [ -s "$dir/${p##*=}:7950" ]; do
		((++tries < 100)) || { echo "places.sh: no word from the worker at ${p##*=}" >&2; exit 1; }
		sleep 0.1
	done
done
# Bits a second of the links are netns.sh's to know: they are given by --rate.
$first "$dlnode" bench allreduce --workers "$addrs" -n "${#places[@]}" "$@"
