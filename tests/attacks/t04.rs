//! T4: metrics as a side channel.
use crate::attack::{Open, Threat};

pub(crate) const THREAT: Threat = Threat {
    number: 4,
    title: "Metrics as a side channel",
    attacks: &[],
    open: &[Open {
        name: "prompts_told_apart_by_statistics",
        part: "two prompts told apart by the statistics of the container that reads them",
        because: "the host is told CPU time to the microsecond and memory to the page: nothing makes them coarser yet",
    }],
};
