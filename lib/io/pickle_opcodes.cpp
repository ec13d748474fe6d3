#include "lib/io/pickle_opcodes.h"

#include <algorithm>
#include <array>

namespace moelora {
namespace {

struct Row {
  uint8_t op;
  std::string_view name;
  bool runs_code = false;
};

constexpr std::array kTable = {
    Row{'(', "MARK"},
    Row{'.', "STOP"},
    Row{'0', "POP"},
    Row{'1', "POP_MARK"},
    Row{'2', "DUP"},
    Row{'F', "FLOAT"},
    Row{'G', "BINFLOAT"},
    Row{'I', "INT"},
    Row{'J', "BININT"},
    Row{'K', "BININT1"},
    Row{'L', "LONG"},
    Row{'M', "BININT2"},
    Row{'N', "NONE"},
    Row{'P', "PERSID"},
    Row{'Q', "BINPERSID"},
    Row{'R', "REDUCE"},
    Row{'S', "STRING"},
    Row{'T', "BINSTRING"},
    Row{'U', "SHORT_BINSTRING"},
    Row{'V', "UNICODE"},
    Row{'X', "BINUNICODE"},
    Row{'a', "APPEND"},
    Row{'b', "BUILD"},
    Row{'c', "GLOBAL"},
    Row{'d', "DICT"},
    Row{'}', "EMPTY_DICT"},
    Row{'e', "APPENDS"},
    Row{'g', "GET"},
    Row{'h', "BINGET"},
    Row{'i', "INST", true},
    Row{'j', "LONG_BINGET"},
    Row{'l', "LIST"},
    Row{']', "EMPTY_LIST"},
    Row{'o', "OBJ", true},
    Row{'p', "PUT"},
    Row{'q', "BINPUT"},
    Row{'r', "LONG_BINPUT"},
    Row{'s', "SETITEM"},
    Row{'t', "TUPLE"},
    Row{')', "EMPTY_TUPLE"},
    Row{'u', "SETITEMS"},
    Row{'B', "BINBYTES"},
    Row{'C', "SHORT_BINBYTES"},
    Row{0x80, "PROTO"},
    Row{0x81, "NEWOBJ", true},
    Row{0x82, "EXT1", true},
    Row{0x83, "EXT2", true},
    Row{0x84, "EXT4", true},
    Row{0x85, "TUPLE1"},
    Row{0x86, "TUPLE2"},
    Row{0x87, "TUPLE3"},
    Row{0x88, "NEWTRUE"},
    Row{0x89, "NEWFALSE"},
    Row{0x8A, "LONG1"},
    Row{0x8B, "LONG4"},
    Row{0x8C, "SHORT_BINUNICODE"},
    Row{0x8D, "BINUNICODE8"},
    Row{0x8E, "BINBYTES8"},
    Row{0x8F, "EMPTY_SET"},
    Row{0x90, "ADDITEMS"},
    Row{0x91, "FROZENSET"},
    Row{0x92, "NEWOBJ_EX", true},
    Row{0x93, "STACK_GLOBAL", true},
    Row{0x94, "MEMOIZE"},
    Row{0x95, "FRAME"},
    Row{0x96, "BYTEARRAY8"},
    Row{0x97, "NEXT_BUFFER"},
    Row{0x98, "READONLY_BUFFER"},
};

const Row* find(uint8_t op) {
  const auto* const it =
      std::find_if(kTable.begin(), kTable.end(), [&](const Row& row) { return row.op == op; });
  return it == kTable.end() ? nullptr : it;
}

}  // namespace

std::string_view pickle_op_name(uint8_t op) {
  const Row* const row = find(op);
  return row == nullptr ? std::string_view{} : row->name;
}

bool pickle_op_runs_code(uint8_t op) {
  const Row* const row = find(op);
  return row != nullptr && row->runs_code;
}

}  // namespace moelora
