#include "lib/io/torch/pickle.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <optional>
#include <span>
#include <vector>

#include "lib/io/torch/pickle_builder.h"

namespace moelora {
namespace {

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

// Python's names of all opcodes.
struct OpName {
  uint8_t op;
  std::string_view name;
  bool runs_code = false;  // can import a name or make an object other than by GLOBAL and REDUCE
};

constexpr std::array kTable = {
    OpName{'(', "MARK"},
    OpName{'.', "STOP"},
    OpName{'0', "POP"},
    OpName{'1', "POP_MARK"},
    OpName{'2', "DUP"},
    OpName{'F', "FLOAT"},
    OpName{'G', "BINFLOAT"},
    OpName{'I', "INT"},
    OpName{'J', "BININT"},
    OpName{'K', "BININT1"},
    OpName{'L', "LONG"},
    OpName{'M', "BININT2"},
    OpName{'N', "NONE"},
    OpName{'P', "PERSID"},
    OpName{'Q', "BINPERSID"},
    OpName{'R', "REDUCE"},
    OpName{'S', "STRING"},
    OpName{'T', "BINSTRING"},
    OpName{'U', "SHORT_BINSTRING"},
    OpName{'V', "UNICODE"},
    OpName{'X', "BINUNICODE"},
    OpName{'a', "APPEND"},
    OpName{'b', "BUILD"},
    OpName{'c', "GLOBAL"},
    OpName{'d', "DICT"},
    OpName{'}', "EMPTY_DICT"},
    OpName{'e', "APPENDS"},
    OpName{'g', "GET"},
    OpName{'h', "BINGET"},
    OpName{'i', "INST", true},
    OpName{'j', "LONG_BINGET"},
    OpName{'l', "LIST"},
    OpName{']', "EMPTY_LIST"},
    OpName{'o', "OBJ", true},
    OpName{'p', "PUT"},
    OpName{'q', "BINPUT"},
    OpName{'r', "LONG_BINPUT"},
    OpName{'s', "SETITEM"},
    OpName{'t', "TUPLE"},
    OpName{')', "EMPTY_TUPLE"},
    OpName{'u', "SETITEMS"},
    OpName{'B', "BINBYTES"},
    OpName{'C', "SHORT_BINBYTES"},
    OpName{0x80, "PROTO"},
    OpName{0x81, "NEWOBJ", true},
    OpName{0x82, "EXT1", true},
    OpName{0x83, "EXT2", true},
    OpName{0x84, "EXT4", true},
    OpName{0x85, "TUPLE1"},
    OpName{0x86, "TUPLE2"},
    OpName{0x87, "TUPLE3"},
    OpName{0x88, "NEWTRUE"},
    OpName{0x89, "NEWFALSE"},
    OpName{0x8A, "LONG1"},
    OpName{0x8B, "LONG4"},
    OpName{0x8C, "SHORT_BINUNICODE"},
    OpName{0x8D, "BINUNICODE8"},
    OpName{0x8E, "BINBYTES8"},
    OpName{0x8F, "EMPTY_SET"},
    OpName{0x90, "ADDITEMS"},
    OpName{0x91, "FROZENSET"},
    OpName{0x92, "NEWOBJ_EX", true},
    OpName{0x93, "STACK_GLOBAL", true},
    OpName{0x94, "MEMOIZE"},
    OpName{0x95, "FRAME"},
    OpName{0x96, "BYTEARRAY8"},
    OpName{0x97, "NEXT_BUFFER"},
    OpName{0x98, "READONLY_BUFFER"},
};

const OpName* find_name(uint8_t op) {
  const auto* const it =
      std::find_if(kTable.begin(), kTable.end(), [&](const OpName& row) { return row.op == op; });
  return it == kTable.end() ? nullptr : it;
}

constexpr size_t kMaxStack = 1'000'000, kMaxMemo = 4'000'000, kMaxName = 256;

class Machine {
 public:
  Machine(std::string_view bytes, const std::string& where, const std::string& hint)
      : bytes_(bytes), build_(where, hint) {}

  Pickle run() {
    if (bytes_.size() > kMaxPickleBytes)
      build_.refuse(
          fmt::format("has {} bytes, at most {} are read", bytes_.size(), kMaxPickleBytes));
    read_protocol();
    while (!stopped_) {
      build_.at = at_;
      step(static_cast<uint8_t>(number(1)));
      if (stack_.size() > kMaxStack)
        build_.refuse(fmt::format("has more than {} objects on its stack", kMaxStack));
    }
    return finish();
  }

 private:
  using Kind = PickleValue::Kind;
  using Op = PickleOp;

  void read_protocol() {
    if (number(1) != static_cast<uint8_t>(Op::proto)) build_.refuse("does not begin as a pickle");
    if (const uint64_t protocol = number(1); protocol != 2)
      build_.distrust(fmt::format("is a pickle of protocol {}, torch.save writes 2", protocol));
  }

  Pickle finish() {
    if (stack_.size() != 1 || !marks_.empty())
      build_.refuse(fmt::format("stops with {} objects on its stack", stack_.size()));
    if (at_ != bytes_.size())
      build_.refuse(fmt::format("goes on for {} bytes after it stops", bytes_.size() - at_));
    return build_.finish(stack_.back());
  }

  void step(uint8_t op) {
    switch (static_cast<Op>(op)) {
      case Op::stop:
        stopped_ = true;
        return;
      case Op::none:
        return push({});
      case Op::newtrue:
        return push({Kind::boolean, 1});
      case Op::newfalse:
        return push({Kind::boolean, 0});
      case Op::binint:
        return push({Kind::integer, static_cast<int32_t>(number(4))});
      case Op::binint1:
        return push({Kind::integer, static_cast<int64_t>(number(1))});
      case Op::binint2:
        return push({Kind::integer, static_cast<int64_t>(number(2))});
      case Op::long1:
        return push({Kind::integer, long_number(number(1))});
      case Op::binfloat:
        return push({Kind::real, big_endian()});
      case Op::binunicode:
        return push(build_.text(take_bytes(number(4))));
      case Op::short_binstring:
        return push(build_.text(take_bytes(number(1))));
      case Op::global:
        return push_global();
      case Op::empty_list:
        return push(build_.list());
      case Op::empty_dict:
        return push(build_.dict());
      case Op::empty_tuple:
        return push(build_.tuple({}));
      case Op::tuple1:
        return push_tuple(1);
      case Op::tuple2:
        return push_tuple(2);
      case Op::tuple3:
        return push_tuple(3);
      case Op::mark:
        return push_mark();
      case Op::tuple:
        return on_marked([&](auto items) { push(build_.tuple(items)); });
      case Op::append:
        return append(pop(1));
      case Op::appends:
        return on_marked([&](auto items) { append(items); });
      case Op::setitem:
        return set(pop(2));
      case Op::setitems:
        return on_marked([&](auto items) { set(items); });
      case Op::binget:
        return get(number(1));
      case Op::long_binget:
        return get(number(4));
      case Op::binput:
        return put(number(1));
      case Op::long_binput:
        return put(number(4));
      case Op::binpersid:
        return push(build_.persistent(pop(1)[0]));
      case Op::reduce:
        return reduce(pop(2));
      case Op::build:
        return set_state(pop(1));
      case Op::proto:
        build_.refuse("says its protocol a second time");
    }
    refuse_op(op);
  }

  [[noreturn]] void refuse_op(uint8_t op) const {
    const OpName* const found = find_name(op);
    if (found == nullptr) build_.refuse(fmt::format("has the byte {:#04x} where an opcode is", op));
    if (found->runs_code)
      build_.distrust(
          fmt::format("uses {}, which can run code and no plain tensor needs", found->name));
    build_.refuse(
        fmt::format("uses {}, which torch.save does not write for plain tensors", found->name));
  }

  // ---- the stack ----

  void push(PickleValue value) { stack_.push_back(value); }

  const PickleValue& top() const {
    if (stack_.size() == floor()) refuse_empty();
    return stack_.back();
  }

  // The last `count` objects; they stay in place until the next push.
  std::vector<PickleValue>& pop(size_t count) {
    if (stack_.size() - floor() < count) refuse_empty();
    popped_.assign(stack_.end() - static_cast<std::ptrdiff_t>(count), stack_.end());
    stack_.resize(stack_.size() - count);
    return popped_;
  }

  void push_mark() {
    if (marks_.size() == kMaxStack) build_.refuse("has too many marks on its stack");
    marks_.push_back(stack_.size());
  }

  template <class F>
  void on_marked(F f) {
    if (marks_.empty()) build_.refuse("needs a mark on its stack and has none");
    const size_t count = stack_.size() - floor();
    const std::vector<PickleValue>& items = pop(count);
    marks_.pop_back();
    f(std::span<const PickleValue>(items));
  }

  size_t floor() const { return marks_.empty() ? 0 : marks_.back(); }
  [[noreturn]] void refuse_empty() const {
    build_.refuse("takes more from its stack than there is");
  }

  // ---- what needs more than one line ----

  void push_tuple(size_t count) {
    const PickleValue made = build_.tuple(pop(count));
    push(made);
  }

  void append(std::span<const PickleValue> items) { build_.append(top(), items); }
  void set(std::span<const PickleValue> items) { build_.set(top(), items); }
  void set_state(std::span<const PickleValue> state) { build_.build(top(), state[0]); }
  void reduce(std::span<const PickleValue> call) { push(build_.call(call[0], call[1])); }

  void push_global() {
    const std::string_view module = line(), name = line();
    push(build_.global(module, name));
  }

  void get(uint64_t index) {
    if (index >= memo_.size() || !memo_[index])
      build_.refuse(fmt::format("recalls object {}, which it never stored", index));
    push(*memo_[index]);
  }

  void put(uint64_t index) {
    // Each number was stored by at least one byte before: a short pickle needs no large memo.
    if (index >= kMaxMemo || index > at_)
      build_.refuse(fmt::format("stores an object under the number {}", index));
    if (index >= memo_.size()) memo_.resize(index + 1);
    memo_[index] = top();
  }

  // ---- operands ----

  std::string_view take_bytes(uint64_t count) {
    if (bytes_.size() - at_ < count) build_.refuse("was cut short");
    const std::string_view out = bytes_.substr(at_, count);
    at_ += count;
    return out;
  }

  uint64_t number(size_t width) {
    const std::string_view bytes = take_bytes(width);
    uint64_t out = 0;
    for (size_t i = width; i-- > 0;) out = out << 8 | static_cast<uint8_t>(bytes[i]);
    return out;
  }

  int64_t long_number(uint64_t width) {
    if (width > 8) build_.refuse(fmt::format("has an integer of {} bytes", width));
    if (width == 0) return 0;
    const uint64_t unused = 64 - 8 * width;
    return static_cast<int64_t>(number(width) << unused) >> unused;
  }

  int64_t big_endian() {
    uint64_t out = 0;
    for (const char byte : take_bytes(8)) out = out << 8 | static_cast<uint8_t>(byte);
    return static_cast<int64_t>(out);
  }

  std::string_view line() {
    const size_t end = bytes_.substr(at_, kMaxName + 1).find('\n');
    if (end == std::string_view::npos) build_.refuse("has a name that does not end");
    const std::string_view out = take_bytes(end);
    ++at_;
    return out;
  }

  std::string_view bytes_;
  PickleBuilder build_;
  size_t at_ = 0;
  bool stopped_ = false;
  std::vector<PickleValue> stack_, popped_;
  std::vector<size_t> marks_;  // sizes of the stack
  std::vector<std::optional<PickleValue>> memo_;
};

}  // namespace

Pickle parse_pickle(std::string_view bytes, const std::string& where, const std::string& hint) {
  return Machine(bytes, where, hint).run();
}

}  // namespace moelora
