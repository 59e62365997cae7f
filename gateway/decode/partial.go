package decode

// Partial is what was left out of a push, in the protocols that can say so.
type Partial struct {
	Rejected int    // entries
	Reason   string // why, and where: the first of them
}
