#pragma once

#include <cstdint>
#include <string_view>

namespace moelora {

// The opcodes that torch.save writes for plain tensors, all of protocol 2.
enum class PickleOp : uint8_t {
  mark = '(',
  stop = '.',
  binfloat = 'G',
  binint = 'J',
  binint1 = 'K',
  binint2 = 'M',
  none = 'N',
  binpersid = 'Q',
  reduce = 'R',
  short_binstring = 'U',
  binunicode = 'X',
  empty_list = ']',
  append = 'a',
  build = 'b',
  global = 'c',
  appends = 'e',
  binget = 'h',
  long_binget = 'j',
  binput = 'q',
  long_binput = 'r',
  setitem = 's',
  tuple = 't',
  setitems = 'u',
  empty_dict = '}',
  empty_tuple = ')',
  proto = 0x80,
  tuple1 = 0x85,
  tuple2 = 0x86,
  tuple3 = 0x87,
  newtrue = 0x88,
  newfalse = 0x89,
  long1 = 0x8A,
};

// Python's name of any opcode ("STACK_GLOBAL"); "" for a byte that is none.
std::string_view pickle_op_name(uint8_t op);

// True of those that can import a name or make an object other than by GLOBAL and REDUCE.
bool pickle_op_runs_code(uint8_t op);

}  // namespace moelora
