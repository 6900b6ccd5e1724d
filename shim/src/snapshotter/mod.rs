//! A containerd snapshotter that holds no layers: images are pulled inside the guest.
//!
//! containerd asks for a snapshot of each layer while it pulls. This one answers that the layer is there already, so that
//! containerd fetches nothing, and remembers which image the layer was asked for, where containerd says so. When a container
//! is created, its mount carries the images that its layers may belong to, for the shim to pass on. What the guest runs is
//! decided there, by digest; what is remembered here is the host's word and no more.
//!
//! An image that containerd has already, pulled for another runtime, it unpacks here when the first container is made from it.
//! It gets a folder for each layer, which is removed as soon as the layer is committed: the guest pulls its own.
//!
//! [`service`] is the logic, without I/O but for the [`store`] and these folders; [`server`] is containerd's gRPC API on a
//! Unix socket; `stub` is what containerd finds where a container's root should be, and `lookup` what it is told of users.
//!
//! ```text
//! Prepare(extract-…, parent, snapshot.ref = chain, image labels) ─▶ Committed(chain) + ALREADY_EXISTS
//! Prepare(extract-…, parent)  ─▶ Active(key) ── Mounts ─▶ bind of a folder of its own
//!                                     └─ Commit(chain, key) ─▶ Committed(chain), the folder is removed
//! Prepare(key, chain) ─▶ Active(key) ┐
//! View(key, chain)    ─▶ View(key)   ┴─ Mounts ─▶ bind of the stub, x-cella.image=<repository>@<digest>…
//! Remove(name)        ─▶ gone, unless another snapshot has it for its parent
//! Commit of a container's root ─▶ refused: what a container writes stays in its guest
//! ```

pub mod config;
pub mod image;
pub mod server;
pub mod service;
pub mod store;

mod folders;
mod grpc;
mod lookup;
mod proto;
mod snapshot;
mod stub;

pub use snapshot::{Kind, Mount, Snapshot};
