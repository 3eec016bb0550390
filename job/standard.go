package job

func Standard() Registry { return Registry{} }
