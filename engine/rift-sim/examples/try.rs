fn main(){ for t in std::env::args().skip(1){ let s: rift_sim::Scenario = t.parse().unwrap(); println!("{}", rift_sim::run(&s,1)); } }
