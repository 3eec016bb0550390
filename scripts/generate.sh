#!/bin/sh
# Generates the Go code of allreduce/rpc/internal/nodepb/node.proto beside it.
# With --check it writes nothing and fails if the committed code is not what would be generated
# (comments that name the version of protoc are left out of the comparison).
# Needs protoc on PATH; the plugins are built from the tools that go.mod pins.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

go build -o "$tmp/protoc-gen-go" google.golang.org/protobuf/cmd/protoc-gen-go
go build -o "$tmp/protoc-gen-go-grpc" google.golang.org/grpc/cmd/protoc-gen-go-grpc

dir=allreduce/rpc/internal/nodepb
mkdir "$tmp/out"
PATH="$tmp:$PATH" protoc -I "$dir" \
	--go_out="$tmp/out" --go_opt=paths=source_relative \
	--go-grpc_out="$tmp/out" --go-grpc_opt=paths=source_relative \
	node.proto

if [ "${1:-}" = --check ]; then
	for f in "$tmp"/out/*.go; do
		diff -u -I '^//.*protoc' "$dir/$(basename "$f")" "$f" || {
			echo "$dir/$(basename "$f") is not current: run scripts/generate.sh" >&2
			exit 1
		}
	done
else
	cp "$tmp"/out/*.go "$dir/"
fi
