// Package check holds tests of what surrounds the code: compose.yaml, Dockerfile, the configurations in deploy and the
// Taskfile. They parse each with the library of the program that will read it, and hold it against
// the rest of the repository.
package check
