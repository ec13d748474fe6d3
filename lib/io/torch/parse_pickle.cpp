#include "lib/io/torch/parse_pickle.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <optional>
#include <span>
#include <vector>

#include "lib/io/torch/pickle_builder.h"

namespace moelora {
namespace {

// An opcode that torch.save does not write for plain tensors, by Python's name of it.
struct OtherOp {
  uint8_t op;
  std::string_view name;
  bool runs_code = false;  // can import a name or make an object other than by GLOBAL and REDUCE
};

constexpr std::array kOtherOps = {
    OtherOp{'0', "POP"},
    OtherOp{'1', "POP_MARK"},
    OtherOp{'2', "DUP"},
    OtherOp{'F', "FLOAT"},
    OtherOp{'I', "INT"},
    OtherOp{'L', "LONG"},
    OtherOp{'P', "PERSID"},
    OtherOp{'S', "STRING"},
    OtherOp{'T', "BINSTRING"},
    OtherOp{'V', "UNICODE"},
    OtherOp{'d', "DICT"},
    OtherOp{'g', "GET"},
    OtherOp{'i', "INST", true},
    OtherOp{'l', "LIST"},
    OtherOp{'o', "OBJ", true},
    OtherOp{'p', "PUT"},
    OtherOp{'B', "BINBYTES"},
    OtherOp{'C', "SHORT_BINBYTES"},
    OtherOp{0x81, "NEWOBJ", true},
    OtherOp{0x82, "EXT1", true},
    OtherOp{0x83, "EXT2", true},
    OtherOp{0x84, "EXT4", true},
    OtherOp{0x8B, "LONG4"},
    OtherOp{0x8C, "SHORT_BINUNICODE"},
    OtherOp{0x8D, "BINUNICODE8"},
    OtherOp{0x8E, "BINBYTES8"},
    OtherOp{0x8F, "EMPTY_SET"},
    OtherOp{0x90, "ADDITEMS"},
    OtherOp{0x91, "FROZENSET"},
    OtherOp{0x92, "NEWOBJ_EX", true},
    OtherOp{0x93, "STACK_GLOBAL", true},
    OtherOp{0x94, "MEMOIZE"},
    OtherOp{0x95, "FRAME"},
    OtherOp{0x96, "BYTEARRAY8"},
    OtherOp{0x97, "NEXT_BUFFER"},
    OtherOp{0x98, "READONLY_BUFFER"},
};

constexpr uint8_t kProto = 0x80;
constexpr size_t kMaxStack = 1'000'000, kMaxMemo = 4'000'000, kMaxName = 256;

class Machine {
 public:
  Machine(std::string_view bytes, const std::string& where, const std::string& hint)
      : bytes_(bytes), build_(where, hint) {}

  Pickle run() {
    if (bytes_.size() > kMaxPickleBytes)
      build_.refuse("has {} bytes, at most {} are read", bytes_.size(), kMaxPickleBytes);
    read_protocol();
    while (!stopped_) {
      build_.at = at_;
      step(static_cast<uint8_t>(number(1)));
      if (stack_.size() > kMaxStack)
        build_.refuse("has more than {} objects on its stack", kMaxStack);
    }
    return finish();
  }

 private:
  using Kind = PickleValue::Kind;

  void read_protocol() {
    if (number(1) != kProto) build_.refuse("does not begin as a pickle");
    if (const uint64_t protocol = number(1); protocol != 2)
      build_.distrust("is a pickle of protocol {}, torch.save writes 2", protocol);
  }

  Pickle finish() {
    if (stack_.size() != 1 || !marks_.empty())
      build_.refuse("stops with {} objects on its stack", stack_.size());
    if (at_ != bytes_.size())
      build_.refuse("goes on for {} bytes after it stops", bytes_.size() - at_);
    return build_.finish(stack_.back());
  }

  // The opcodes that torch.save writes for plain tensors, all of protocol 2.
  void step(uint8_t op) {
    using M = Machine;
    static constexpr auto kSteps = [] {
      std::array<void (*)(M&), 256> on = {};
      on['('] = [](M& m) { m.push_mark(); };                                      // MARK
      on['.'] = [](M& m) { m.stopped_ = true; };                                  // STOP
      on['G'] = [](M& m) { m.push({Kind::real, m.big_endian()}); };               // BINFLOAT
      on['J'] = [](M& m) { m.push_integer(static_cast<int32_t>(m.number(4))); };  // BININT
      on['K'] = [](M& m) { m.push_integer(m.natural(1)); };                       // BININT1
      on['M'] = [](M& m) { m.push_integer(m.natural(2)); };                       // BININT2
      on[0x8A] = [](M& m) { m.push_integer(m.long_number(m.number(1))); };        // LONG1
      on['N'] = [](M& m) { m.push({}); };                                         // NONE
      on[0x88] = [](M& m) { m.push({Kind::boolean, 1}); };                        // NEWTRUE
      on[0x89] = [](M& m) { m.push({Kind::boolean, 0}); };                        // NEWFALSE
      on['U'] = [](M& m) { m.push_text(m.number(1)); };                           // SHORT_BINSTRING
      on['X'] = [](M& m) { m.push_text(m.number(4)); };                           // BINUNICODE
      on['Q'] = [](M& m) { m.push(m.build_.persistent(m.pop(1)[0])); };           // BINPERSID
      on['c'] = [](M& m) { m.push_global(); };                                    // GLOBAL
      on['R'] = [](M& m) { m.reduce(m.pop(2)); };                                 // REDUCE
      on['b'] = [](M& m) { m.set_state(m.pop(1)); };                              // BUILD
      on[']'] = [](M& m) { m.push(m.build_.list()); };                            // EMPTY_LIST
      on['a'] = [](M& m) { m.append(m.pop(1)); };                                 // APPEND
      on['e'] = [](M& m) { m.append(m.pop_marked()); };                           // APPENDS
      on['}'] = [](M& m) { m.push(m.build_.dict()); };                            // EMPTY_DICT
      on['s'] = [](M& m) { m.set(m.pop(2)); };                                    // SETITEM
      on['u'] = [](M& m) { m.set(m.pop_marked()); };                              // SETITEMS
      on[')'] = [](M& m) { m.push(m.build_.tuple({})); };                         // EMPTY_TUPLE
      on[0x85] = [](M& m) { m.push(m.build_.tuple(m.pop(1))); };                  // TUPLE1
      on[0x86] = [](M& m) { m.push(m.build_.tuple(m.pop(2))); };                  // TUPLE2
      on[0x87] = [](M& m) { m.push(m.build_.tuple(m.pop(3))); };                  // TUPLE3
      on['t'] = [](M& m) { m.push(m.build_.tuple(m.pop_marked())); };             // TUPLE
      on['h'] = [](M& m) { m.get(m.number(1)); };                                 // BINGET
      on['j'] = [](M& m) { m.get(m.number(4)); };                                 // LONG_BINGET
      on['q'] = [](M& m) { m.put(m.number(1)); };                                 // BINPUT
      on['r'] = [](M& m) { m.put(m.number(4)); };                                 // LONG_BINPUT
      on[kProto] = [](M& m) { m.build_.refuse("says its protocol a second time"); };
      return on;
    }();
    if (kSteps[op] == nullptr) refuse_op(op);
    kSteps[op](*this);
  }

  [[noreturn]] void refuse_op(uint8_t op) const {
    const auto found = std::find_if(kOtherOps.begin(), kOtherOps.end(),
                                    [&](const OtherOp& row) { return row.op == op; });
    if (found == kOtherOps.end()) build_.refuse("has the byte {:#04x} where an opcode is", op);
    if (found->runs_code)
      build_.distrust("uses {}, which can run code and no plain tensor needs", found->name);
    build_.refuse("uses {}, which torch.save does not write for plain tensors", found->name);
  }

  // ---- the stack ----

  void push(PickleValue value) { stack_.push_back(value); }
  void push_integer(int64_t value) { push({Kind::integer, value}); }
  void push_text(uint64_t bytes) { push(build_.text(take_bytes(bytes))); }

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

  // All objects above the last mark, which goes.
  std::vector<PickleValue>& pop_marked() {
    if (marks_.empty()) build_.refuse("needs a mark on its stack and has none");
    pop(stack_.size() - floor());
    marks_.pop_back();
    return popped_;
  }

  size_t floor() const { return marks_.empty() ? 0 : marks_.back(); }
  [[noreturn]] void refuse_empty() const {
    build_.refuse("takes more from its stack than there is");
  }

  // ---- what needs more than one line ----

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
      build_.refuse("recalls object {}, which it never stored", index);
    push(*memo_[index]);
  }

  void put(uint64_t index) {
    // Each number was stored by at least one byte before: a short pickle needs no large memo.
    if (index >= kMaxMemo || index > at_)
      build_.refuse("stores an object under the number {}", index);
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

  int64_t natural(size_t width) { return static_cast<int64_t>(number(width)); }

  int64_t long_number(uint64_t width) {
    if (width > 8) build_.refuse("has an integer of {} bytes", width);
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
