//! Power cuts of real processes: what a process did to its files is recorded, and replayed up to a
//! moment with what a disk may have lost by then.
//!
//! [`Recorder`] builds the preloaded library and starts processes under it. [`Trace`] reads what it
//! wrote. [`Machine`] follows a trace and knows which bytes and names are durable. [`Machine::image`]
//! makes the folder that a power cut would leave, by a [`Loss`] and dice.

mod image;
mod machine;
mod recorder;
mod recovery;
mod trace;

pub use image::{Image, Loss};
pub use machine::Machine;
pub use recorder::{Recorder, Trouble};
pub use recovery::{Recovered, recover};
pub use trace::{Change, Event, Trace};
