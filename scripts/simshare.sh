#!/usr/bin/env bash
# Prints, as markdown, which share of the product runs in the simulator as it is:
# by package, then what does not run there and why. SEEDS says how many schedules.
#
# A statement is covered if some schedule executes it. A file runs in the simulator
# if it has at least a tenth of its statements covered; fewer are no more than the
# initialisation of variables. Lines are those of Go code, without blank lines and
# comments; files that only declare are in neither column.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

go test ./sim -count=1 -timeout 0 -skip '^Test.*Mutant' -seeds "${SEEDS:-300}" \
	-coverpkg=./... -coverprofile="$tmp/cover" >"$tmp/log" || { cat "$tmp/log" >&2; exit 1; }

# Product: no tests, no generated code, nothing that only tests use, not the command.
go list -f '{{range .GoFiles}}{{$.ImportPath}}/{{.}}{{"\n"}}{{end}}' ./... |
	sed "s|^$(go list -m)/||" |
	grep -Ev '^(sim|e2e|cmd|examples|deploy|internal/arch|checkpoint/memfs)/|/nodepb/' >"$tmp/files"

lines() { # of code; there are no block comments but in generated code
	grep -cvE '^[[:space:]]*(//.*)?$' "$1" || true
}
while read -r f; do echo "$f $(lines "$f")"; done <"$tmp/files" >"$tmp/lines"
command=$(git ls-files 'cmd/*.go' | grep -v _test.go | while read -r f; do lines "$f"; done | awk '{ n += $1 } END { print n }')

awk -v module="$(go list -m)/" -v command="$command" '
function dir(f) { sub(/\/[^\/]*$/, "", f); return f }
function base(f) { sub(/.*\//, "", f); return f }
function why(f) {
	if (f ~ /^allreduce\/rpc\//) return "sockets, gRPC"
	if (f ~ /^cluster\//) return "memberlist"
	if (f ~ /^checkpoint\//) return "files of the system"
	if (f ~ /^dataset\//) return "data sets from files"
	if (f ~ /^job\//) return "the job file as text"
	if (f ~ /^internal\//) return "other variants of kernels and functions"
	if (f ~ /^train\/(fit|predict|evaluate|data)\.go/) return "the library in one process"
	if (f ~ /^train\//) return "goroutines around a node"
	return "not needed by the loads"
}
function percent(a, b) { return b ? sprintf("%.0f %%", 100 * a / b) : "" }
function row(p, s, c, l, r, d) { printf "| %s | %d | %s | %d | %d | %d |\n", p, s, percent(c, s), l, r, d }

FILENAME == ARGV[1] { # name:range statements count; a range may come several times
	if ($1 == "mode:") next
	size[$1] = $2
	if ($3 > 0) hit[$1] = 1
	next
}
FNR == 1 {
	for (k in size) {
		f = k; sub(/:.*/, "", f); sub(module, "", f)
		all[f] += size[k]
		if (k in hit) run[f] += size[k]
	}
}
{
	f = $1; p = dir(f)
	if (!(p in lines)) order[++packages] = p
	stmts[p] += all[f]; covered[p] += run[f]; lines[p] += $2
	S += all[f]; C += run[f]; L += $2
	if (!all[f]) next
	if (10 * run[f] >= all[f]) { runs[p] += $2; R += $2; next }
	drives[p] += $2; D += $2
	w = why(f)
	if (!(w in group)) reasons[++groups] = w
	group[w] += $2
	names[w] = names[w] (p == last[w] ? ", " : (names[w] ? "; " : "") "`" p "`: ") base(f)
	last[w] = p
}
END {
	print "| package | statements | covered | lines of code | in files that run | in files that do not |"
	print "|---|---:|---:|---:|---:|---:|"
	for (i = 1; i <= packages; i++) { p = order[i]; row("`" p "`", stmts[p], covered[p], lines[p], runs[p], drives[p]) }
	row("all", S, C, L, R, D)
	printf "\nOf the lines in files with statements, %s are in files that run.\n\n", percent(R, R + D)
	print "| what does not run there | lines | files |"
	print "|---|---:|---|"
	for (i = 1; i <= groups; i++) { w = reasons[i]; printf "| %s | %d | %s |\n", w, group[w], names[w] }
	printf "| the command line (not counted above) | %d | `cmd/dlnode` |\n", command
}' "$tmp/cover" "$tmp/lines"
