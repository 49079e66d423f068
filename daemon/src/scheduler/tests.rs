//! The two machines against each other: scripts, kills at every record, and chance.

mod chaos;
mod hostile;
mod kills;
mod limits;
mod live;
mod policy;
mod scripts;
mod scripts_of_ends;
mod scripts_of_lines;
mod wipes;
mod world;
