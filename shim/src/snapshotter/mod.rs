//! A containerd snapshotter that holds no layers: images are pulled inside the guest.
//!
//! containerd asks for a snapshot of each layer while it pulls. This one answers that the layer is there already, so that
//! containerd fetches nothing, and remembers which image the layer was asked for. When a container is created, its mount
//! carries the images that its layers may belong to, for the shim to pass on. What the guest runs is decided there, by
//! digest; what is remembered here is the host's word and no more.
//!
//! [`service`] is the logic, without I/O but for the [`store`]; [`server`] is containerd's gRPC API on a Unix socket.
//!
//! ```text
//! Prepare(extract-…, parent, snapshot.ref = chain, image labels) ─▶ Committed(chain) + ALREADY_EXISTS
//! Prepare(key, chain) ─▶ Active(key) ┐
//! View(key, chain)    ─▶ View(key)   ┴─ Mounts ─▶ bind of an empty directory, x-cella.image=<repository>@<digest>…
//! Remove(name)        ─▶ gone, unless another snapshot has it for its parent
//! Commit              ─▶ refused: what a container writes stays in its guest
//! ```

pub mod config;
pub mod image;
pub mod server;
pub mod service;
pub mod store;

mod grpc;
mod proto;
mod snapshot;

pub use snapshot::{Kind, Mount, Snapshot};
