"""What runs the tracker's networks; one file a framework, one contract (`contract.EngineNetwork`)."""
