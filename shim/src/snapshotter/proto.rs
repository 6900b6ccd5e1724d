//! Messages of `containerd.services.snapshots.v1`, by field number as in containerd's `snapshots.proto` and `mount.proto`.
//!
//! Written out because the service is ten calls and will not change: no protobuf compiler is needed to build. Requests
//! that have the same fields share a type.
use std::collections::BTreeMap;

use prost_types::{FieldMask, Timestamp};

/// `PrepareSnapshotRequest`, `ViewSnapshotRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct CreateRequest {
    /// What containerd calls this snapshotter.
    #[prost(string, tag = "1")]
    pub(super) snapshotter: String,
    #[prost(string, tag = "2")]
    pub(super) key: String,
    #[prost(string, tag = "3")]
    pub(super) parent: String,
    #[prost(btree_map = "string, string", tag = "4")]
    pub(super) labels: BTreeMap<String, String>,
}

/// `MountsRequest`, `RemoveSnapshotRequest`, `StatSnapshotRequest`, `UsageRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct KeyRequest {
    #[prost(string, tag = "2")]
    pub(super) key: String,
}

/// `CommitSnapshotRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct CommitRequest {
    #[prost(string, tag = "2")]
    pub(super) name: String,
    #[prost(string, tag = "3")]
    pub(super) key: String,
    #[prost(btree_map = "string, string", tag = "4")]
    pub(super) labels: BTreeMap<String, String>,
}

/// `UpdateSnapshotRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct UpdateRequest {
    #[prost(message, optional, tag = "2")]
    pub(super) info: Option<Info>,
    #[prost(message, optional, tag = "3")]
    pub(super) update_mask: Option<FieldMask>,
}

/// `ListSnapshotsRequest`, `CleanupRequest`: nothing in them is looked at.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct PlainRequest {}

/// `google.protobuf.Empty`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Empty {}

/// `PrepareSnapshotResponse`, `ViewSnapshotResponse`, `MountsResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct MountsResponse {
    #[prost(message, repeated, tag = "1")]
    pub(super) mounts: Vec<Mount>,
}

/// `StatSnapshotResponse`, `UpdateSnapshotResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct InfoResponse {
    #[prost(message, optional, tag = "1")]
    pub(super) info: Option<Info>,
}

/// `ListSnapshotsResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ListResponse {
    #[prost(message, repeated, tag = "1")]
    pub(super) info: Vec<Info>,
}

/// `UsageResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct UsageResponse {
    #[prost(int64, tag = "1")]
    pub(super) size: i64,
    #[prost(int64, tag = "2")]
    pub(super) inodes: i64,
}

/// `containerd.types.Mount`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Mount {
    #[prost(string, tag = "1")]
    pub(super) fs_type: String,
    #[prost(string, tag = "2")]
    pub(super) source: String,
    #[prost(string, repeated, tag = "4")]
    pub(super) options: Vec<String>,
}

/// `Info`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Info {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) parent: String,
    #[prost(enumeration = "InfoKind", tag = "3")]
    pub(super) kind: i32,
    #[prost(message, optional, tag = "4")]
    pub(super) created_at: Option<Timestamp>,
    #[prost(message, optional, tag = "5")]
    pub(super) updated_at: Option<Timestamp>,
    #[prost(btree_map = "string, string", tag = "6")]
    pub(super) labels: BTreeMap<String, String>,
}

/// `Kind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub(super) enum InfoKind {
    Unknown = 0,
    View = 1,
    Active = 2,
    Committed = 3,
}
