// Package k8s holds no code: beside it lie manifests for Kubernetes, and its
// tests hold them against what they rely on. Each document is decoded strictly
// into structs that have the fields we use and no others, so a misspelt field
// fails; names that must agree (selectors, volumes, ports, the secret's key, the
// job's path) are compared; the job in the ConfigMap is parsed as a node would.
//
// The structs are written from the Kubernetes API reference (v1, apps/v1), not
// imported: that a field is spelt right is checked, not that a server of some
// version admits the whole.
package k8s
