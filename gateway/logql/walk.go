package logql

import "slices"

// Walk visits e and all expressions in it: each before what is in it, and that from left to right. The log queries that range
// aggregations and variants are of are visited, too.
func Walk(e Expr, visit func(Expr)) {
	// A chain of operators can be as long as a query, so that this is no recursion.
	for waiting := []Expr{e}; len(waiting) > 0; {
		e := waiting[len(waiting)-1]
		waiting = waiting[:len(waiting)-1]
		visit(e)
		switch e := e.(type) {
		case *RangeAgg:
			waiting = append(waiting, e.Log)
		case *VectorAgg:
			waiting = append(waiting, e.Expr)
		case *BinaryExpr:
			waiting = append(waiting, e.Right, e.Left)
		case *LabelReplace:
			waiting = append(waiting, e.Expr)
		case *Variants:
			waiting = append(waiting, e.Log)
			for _, of := range slices.Backward(e.Of) {
				waiting = append(waiting, of)
			}
		}
	}
}
