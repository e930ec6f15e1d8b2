//go:build tools

// Package tools pins the etcd server that the test bed runs.
// A module of its own: its dependencies clash with those of Kubernetes.
package tools

import _ "go.etcd.io/etcd/server/v3"
