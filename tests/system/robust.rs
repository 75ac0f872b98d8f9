//! Hostile input, load and crashes neither stop the agent nor give it more than its rights: the fourth and fifth
//! promises of SECURITY.md.

mod bad_input;
mod certificates;
mod privileges;
mod tcp;
