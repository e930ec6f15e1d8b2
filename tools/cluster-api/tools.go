//go:build tools

// Package tools pins the Cluster API release whose CRDs the test bed installs (v1alpha1, v1beta1 and v1beta2 of the
// IPAM kinds) and whose clusterctl and core manager it runs.
package tools

import (
	_ "sigs.k8s.io/cluster-api"
	_ "sigs.k8s.io/cluster-api/api/ipam/v1beta2"
	_ "sigs.k8s.io/cluster-api/cmd/clusterctl"
)
