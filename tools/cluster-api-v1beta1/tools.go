//go:build tools

// Package tools pins an old Cluster API release, from before the IPAM kinds had v1beta2.
package tools

import _ "sigs.k8s.io/cluster-api/exp/ipam/api/v1beta1"
