//! The two machines against each other: scripts, kills at every record, and chance.

mod chaos;
mod forgetting;
mod growth;
mod hostile;
mod kills;
mod live;
mod policy;
mod scripts;
mod scripts_of_ends;
mod scripts_of_lines;
mod wipes;
mod world;
