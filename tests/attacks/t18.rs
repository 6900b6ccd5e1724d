//! T18: token length and timing.
use crate::attack::{Open, Threat};

pub(crate) const THREAT: Threat = Threat {
    number: 18,
    title: "Token length and timing",
    attacks: &[],
    open: &[Open {
        name: "sizes_of_streamed_chunks",
        part: "sizes and times of streamed chunks tell the text",
        because: "the attested ingress, which would pad them, does not exist yet: today prompts and answers cross the forwarded port in the clear",
    }],
};
