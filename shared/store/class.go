package store

import (
	"errors"
	"strconv"
	"strings"

	"github.com/ClickHouse/clickhouse-go/v2"
)

// Class says whose matter a failed call to ClickHouse is.
type Class int

const (
	// Transient passes by itself: the network, a restart, memory, too many parts, and whatever is not known.
	Transient Class = iota
	// BadBatch is about the rows: repeated, they are refused again. Few of them may be at fault.
	BadBatch
	// Operator is for somebody to act on: access, quotas, a schema that is not ours, a full disk. Until then the
	// call fails again, and after that it succeeds.
	Operator
)

// String returns the name of the class, such as "bad batch".
func (c Class) String() string {
	switch c {
	case Transient:
		return "transient"
	case BadBatch:
		return "bad batch"
	case Operator:
		return "operator"
	}
	return "Class(" + strconv.Itoa(int(c)) + ")"
}

// errSchema is in the error of an insert whose rows don't fit the columns that the table turns out to have.
// Those of the migrations take whatever a batch can hold, so the rows are not to blame.
var errSchema = errors.New("the table is not what the migrations made it")

// Classify returns the class of an error that a method of a Store returned. It goes by the code of the exception
// that ClickHouse sent; codes that are not listed here and errors that are no exception are Transient.
func Classify(err error) Class {
	if errors.Is(err, errSchema) {
		return Operator
	}
	exception, ok := errors.AsType[*clickhouse.Exception](err)
	if !ok {
		return Transient
	}
	if u, ok := unclear[exception.Code]; ok {
		for _, text := range u.texts {
			if strings.Contains(exception.Message, text) {
				return u.class
			}
		}
		return Transient
	}
	return classes[exception.Code]
}

// unclear are codes with more than one cause, which the text tells apart. What is looked for is ClickHouse's own
// text; a line of a log, which may be part of a message, can't turn one class into another that way.
var unclear = map[int32]struct {
	class Class
	texts []string
}{
	// While a function reads a line, and not while a connection or a file is read.
	32: {BadBatch, whileComputing}, // ATTEMPT_TO_READ_AFTER_EOF
	36: {BadBatch, whileComputing}, // BAD_ARGUMENTS

	75:   {Operator, diskErrors}, // CANNOT_WRITE_TO_FILE_DESCRIPTOR
	76:   {Operator, diskErrors}, // CANNOT_OPEN_FILE
	77:   {Operator, diskErrors}, // CANNOT_CLOSE_FILE
	172:  {Operator, diskErrors}, // CANNOT_CREATE_DIRECTORY
	204:  {Operator, diskErrors}, // CANNOT_FSYNC
	586:  {Operator, diskErrors}, // CANNOT_CREATE_FILE
	1000: {Operator, diskErrors}, // POCO_EXCEPTION
	1001: {Operator, diskErrors}, // STD_EXCEPTION
}

var (
	whileComputing = []string{"while executing 'FUNCTION "}
	diskErrors     = []string{"No space left on device", "Disk quota exceeded", "Read-only file system", "Permission denied"}
)

// classes are the codes that are clear and not Transient, from ClickHouse's src/Common/ErrorCodes.cpp.
var classes = map[int32]Class{
	// A constraint that somebody put on the table, or a view of theirs that can't compute its value of a row.
	6:   BadBatch, // CANNOT_PARSE_TEXT
	25:  BadBatch, // CANNOT_PARSE_ESCAPE_SEQUENCE
	26:  BadBatch, // CANNOT_PARSE_QUOTED_STRING
	27:  BadBatch, // CANNOT_PARSE_INPUT_ASSERTION_FAILED
	38:  BadBatch, // CANNOT_PARSE_DATE
	41:  BadBatch, // CANNOT_PARSE_DATETIME
	69:  BadBatch, // ARGUMENT_OUT_OF_BOUND
	70:  BadBatch, // CANNOT_CONVERT_TYPE
	72:  BadBatch, // CANNOT_PARSE_NUMBER
	117: BadBatch, // INCORRECT_DATA
	128: BadBatch, // TOO_LARGE_ARRAY_SIZE
	130: BadBatch, // CANNOT_READ_ARRAY_FROM_TEXT
	131: BadBatch, // TOO_LARGE_STRING_SIZE
	135: BadBatch, // ZERO_ARRAY_OR_TUPLE_INDEX
	153: BadBatch, // ILLEGAL_DIVISION
	190: BadBatch, // SIZES_OF_ARRAYS_DONT_MATCH
	306: BadBatch, // TOO_DEEP_RECURSION
	321: BadBatch, // VALUE_IS_OUT_OF_RANGE_OF_DATA_TYPE
	349: BadBatch, // CANNOT_INSERT_NULL_IN_ORDINARY_COLUMN
	376: BadBatch, // CANNOT_PARSE_UUID
	395: BadBatch, // FUNCTION_THROW_IF_VALUE_IS_NON_ZERO
	407: BadBatch, // DECIMAL_OVERFLOW
	427: BadBatch, // CANNOT_COMPILE_REGEXP
	441: BadBatch, // CANNOT_PARSE_DOMAIN_VALUE_FROM_STRING
	467: BadBatch, // CANNOT_PARSE_BOOL
	469: BadBatch, // VIOLATED_CONSTRAINT
	563: BadBatch, // CANNOT_READ_MAP_FROM_TEXT
	632: BadBatch, // UNEXPECTED_DATA_AFTER_PARSED_VALUE
	675: BadBatch, // CANNOT_PARSE_IPV4
	676: BadBatch, // CANNOT_PARSE_IPV6
	691: BadBatch, // UNKNOWN_ELEMENT_OF_ENUM

	// Who we are, and what we may do.
	164: Operator, // READONLY
	180: Operator, // THERE_IS_NO_PROFILE
	192: Operator, // UNKNOWN_USER
	193: Operator, // WRONG_PASSWORD
	194: Operator, // REQUIRED_PASSWORD
	195: Operator, // IP_ADDRESS_NOT_ALLOWED
	291: Operator, // DATABASE_ACCESS_DENIED
	392: Operator, // QUERY_IS_PROHIBITED
	446: Operator, // FUNCTION_NOT_ALLOWED
	452: Operator, // SETTING_CONSTRAINT_VIOLATION
	472: Operator, // READONLY_SETTING
	481: Operator, // PATH_ACCESS_DENIED
	497: Operator, // ACCESS_DENIED
	516: Operator, // AUTHENTICATION_FAILED
	620: Operator, // QUERY_NOT_ALLOWED
	720: Operator, // USER_EXPIRED
	767: Operator, // REQUIRED_SECOND_FACTOR

	// How much we may do, and what there is room for.
	158: Operator, // TOO_MANY_ROWS
	201: Operator, // QUOTA_EXCEEDED
	243: Operator, // NOT_ENOUGH_SPACE
	290: Operator, // LIMIT_EXCEEDED
	307: Operator, // TOO_MANY_BYTES
	396: Operator, // TOO_MANY_ROWS_OR_BYTES

	// What there is: tables, columns, views, and what this ClickHouse can do.
	8:   Operator, // THERE_IS_NO_COLUMN
	10:  Operator, // NOT_FOUND_COLUMN_IN_BLOCK
	16:  Operator, // NO_SUCH_COLUMN_IN_TABLE
	20:  Operator, // NUMBER_OF_COLUMNS_DOESNT_MATCH
	43:  Operator, // ILLEGAL_TYPE_OF_ARGUMENT
	44:  Operator, // ILLEGAL_COLUMN
	46:  Operator, // UNKNOWN_FUNCTION
	47:  Operator, // UNKNOWN_IDENTIFIER
	48:  Operator, // NOT_IMPLEMENTED
	50:  Operator, // UNKNOWN_TYPE
	53:  Operator, // TYPE_MISMATCH
	60:  Operator, // UNKNOWN_TABLE
	62:  Operator, // SYNTAX_ERROR
	81:  Operator, // UNKNOWN_DATABASE
	115: Operator, // UNKNOWN_SETTING
	122: Operator, // INCOMPATIBLE_COLUMNS
	218: Operator, // TABLE_IS_DROPPED
	242: Operator, // TABLE_IS_READ_ONLY
	344: Operator, // SUPPORT_IS_DISABLED
	471: Operator, // INVALID_SETTING_VALUE
	741: Operator, // TABLE_UUID_MISMATCH
	764: Operator, // DEDUPLICATION_IS_NOT_POSSIBLE
	774: Operator, // TABLE_IS_PERMANENTLY_READ_ONLY
}
