#include <doctest/doctest.h>

#include "lib/io/torch/parse_pickle.h"
#include "tests/io/error_text.h"
#include "tests/io/torch_bytes.h"

using namespace moelora;
using namespace moelora::test;
using namespace std::string_literals;
using Kind = PickleValue::Kind;

namespace {

std::string fault_of(const std::string& pickle) {
  std::string text = error_text([&] { parse_pickle(pickle, "p", "save it again"); });
  if (text.starts_with("p: byte ")) text = text.substr(text.find(": ", 8) + 2);
  return text;
}

// What is said of a pickle of protocol 2 with this body.
std::string fault(const std::string& body) { return fault_of(pickled(body)); }

std::string hint(const std::string& body) {
  return error_hint([&] { parse_pickle(pickled(body), "p", "save it again"); });
}

PickledTensor tensor(const PickledView& view) {
  const std::string bytes = pickled(p_tensor(view));
  return parse_pickle(bytes, "p").tensors.at(0);
}

std::string view_fault(const PickledView& view) { return fault(p_tensor(view)); }

// _rebuild_tensor_v2 with one argument replaced.
std::string call_v2(size_t at, const std::string& argument) {
  std::vector<std::string> arguments = {
      p_storage("FloatStorage", "0", 6),  p_int(0), p_ints(std::vector<int64_t>{2, 3}),
      p_ints(std::vector<int64_t>{3, 1}), "\x89",   p_ordered()};
  if (at < arguments.size())
    arguments[at] = argument;
  else
    arguments.push_back(argument);
  return p_call(p_global("torch._utils", "_rebuild_tensor_v2"), arguments);
}

// `other`: in place of the dtype.
std::string call_v3(const std::string& type, int64_t numel, const std::string& dtype,
                    const std::string& other = "") {
  return p_call(p_global("torch._utils", "_rebuild_tensor_v3"),
                {p_storage(type, "0", numel), p_int(0), p_ints(std::vector<int64_t>{2, 3}),
                 p_ints(std::vector<int64_t>{3, 1}), "\x89", p_ordered(),
                 other.empty() ? p_global("torch", dtype) : other});
}

const std::string kDistrust =
    "Nothing of it was run, but Python might: ask its author for safetensors.";

}  // namespace

TEST_CASE("a pickle of numbers, strings and containers is read as Python means it") {
  const std::string bytes = pickled(
      "}(" + p_text("i") + "](K\x07M\x01\x02" + p_int(-5) + p_int(int64_t{1} << 40) + "\x8A\0"s +
      "\x8A\1\xFF" + "\x8A\2\0\x80"s + "e" + p_text("r") + "G\x3F\xF0\0\0\0\0\0\0"s + p_text("b") +
      "\x88" + p_text("n") + "N" + p_text("t") + ")\x85" + p_text("s") + "U\2hi" + "u");
  const Pickle pickle = parse_pickle(bytes, "p");
  REQUIRE(pickle.root.kind == Kind::dict);
  const auto& items = pickle.dicts[pickle.root.index()].items;
  REQUIRE(items.size() == 6);
  std::vector<int64_t> numbers;
  for (const PickleValue& value : pickle.lists[items[0].second.index()].items)
    numbers.push_back(value.number);
  CHECK(numbers == std::vector<int64_t>{7, 513, -5, int64_t{1} << 40, 0, -1, -32768});
  CHECK(items[1].second.real() == 1.0);
  CHECK(items[2].second.kind == Kind::boolean);
  CHECK(items[2].second.number == 1);
  CHECK(items[3].second.kind == Kind::none);
  const PickleTuple outer = pickle.tuples[items[4].second.index()];
  CHECK(outer.count == 1);
  CHECK(pickle.tuples[pickle.cells[outer.begin].index()].count == 0);
  CHECK(pickle.texts[items[5].second.index()] == "hi");
}

TEST_CASE("a memo shares objects instead of copying them") {
  const std::string bytes = pickled("]q\0"s + "h\0h\0\x87"s);
  const Pickle pickle = parse_pickle(bytes, "p");
  CHECK(pickle.lists.size() == 1);
  CHECK(pickle.tuples[pickle.root.index()].count == 3);
  SUBCASE("so a tuple doubled sixty times is sixty tuples") {
    std::string bomb = ")q\0"s;
    for (int i = 0; i < 60; ++i) bomb += "h\0\x86q\0"s;
    const std::string doubled = pickled(bomb);
    CHECK(parse_pickle(doubled, "p").tuples.size() == 61);
  }
}

TEST_CASE("tensors of every storage type are views of their storage") {
  const std::pair<const char*, DType> types[] = {
      {"FloatStorage", DType::F32},     {"DoubleStorage", DType::F64}, {"HalfStorage", DType::F16},
      {"BFloat16Storage", DType::BF16}, {"ByteStorage", DType::U8},    {"CharStorage", DType::I8},
      {"ShortStorage", DType::I16},     {"IntStorage", DType::I32},    {"LongStorage", DType::I64},
      {"BoolStorage", DType::BOOL}};
  for (const auto& [type, dtype] : types) CHECK(tensor({.type = type}).dtype == dtype);
  const PickledTensor t = tensor({.numel = 100, .offset = 7, .size = {2, 3}, .stride = {10, 2}});
  CHECK(t.offset == 7);
  CHECK(t.shape == std::vector<int64_t>{2, 3});
  CHECK(t.stride == std::vector<int64_t>{10, 2});
  SUBCASE("one storage may have many") {
    const std::string bytes = pickled(p_dict({{"a", p_tensor({})}, {"b", p_tensor({})}}));
    const Pickle pickle = parse_pickle(bytes, "p");
    CHECK(pickle.storages.size() == 1);
    CHECK(pickle.tensors.size() == 2);
  }
  SUBCASE("untyped storages have the dtype of their tensor") {
    const std::string bytes = pickled(call_v3("UntypedStorage", 12, "uint16"));
    CHECK(parse_pickle(bytes, "p").tensors.at(0).dtype == DType::U16);
  }
  SUBCASE("a parameter is its tensor") {
    CHECK(fault(p_call(p_global("torch._utils", "_rebuild_parameter"),
                       {p_tensor({}), "\x88", p_ordered()})) == "");
  }
  SUBCASE("an OrderedDict may have the versions of its modules") {
    CHECK(fault(p_ordered() + p_text("w") + p_tensor({}) + "s}" + p_text("_metadata") +
                p_ordered() + "sb") == "");
  }
  SUBCASE("what else a checkpoint may hold") {
    CHECK(fault(p_call(p_global("torch", "Size"), {p_ints(std::vector<int64_t>{2, 3})})) == "");
    CHECK(fault(p_call(p_global("torch", "device"), {p_text("cuda"), p_int(0)})) == "");
    CHECK(fault(p_global("torch", "bfloat16")) == "");
  }
}

TEST_CASE("a pickle that would run code is refused, and nothing runs") {
  const std::string system = p_global("posix", "system"), touch = p_text("touch /tmp/owned");
  const std::string named = "names posix.system, which a file of plain tensors does not need";
  SUBCASE("REDUCE") { CHECK(fault(system + touch + "\x85R") == named); }
  SUBCASE("BUILD") { CHECK(fault(system + ")\x81}b") == named); }
  SUBCASE("a name as a value alone") { CHECK(fault(system) == named); }
  SUBCASE("INST") {
    CHECK(fault("(" + touch + "iposix\nsystem\n") ==
          "uses INST, which can run code and no plain tensor needs");
  }
  SUBCASE("OBJ") {
    CHECK(fault("(" + p_global("torch", "Size") + touch + "o") ==
          "uses OBJ, which can run code and no plain tensor needs");
  }
  SUBCASE("NEWOBJ") {
    CHECK(fault(p_global("torch", "Size") + ")\x81") ==
          "uses NEWOBJ, which can run code and no plain tensor needs");
  }
  SUBCASE("STACK_GLOBAL") {
    CHECK(fault(p_text("posix") + p_text("system") + "\x93") ==
          "uses STACK_GLOBAL, which can run code and no plain tensor needs");
    CHECK(fault_of("\x80\4"s + "\x8C\5posix\x8C\6system\x93.") ==
          "is a pickle of protocol 4, torch.save writes 2");
  }
  SUBCASE("EXT1") {
    CHECK(fault("\x82\1") == "uses EXT1, which can run code and no plain tensor needs");
  }
  SUBCASE("a __setstate__ by BUILD") {
    CHECK(fault(p_tensor({}) + p_text("state") + "b") ==
          "sets the state of a tensor, only an OrderedDict has one");
    CHECK(fault(p_ordered() + "}" + p_text("__class__") + "NSb"s) != "");
    CHECK(fault(p_ordered() + "}" + p_text("__class__") + "Nsb") ==
          "sets the string \"__class__\" of an OrderedDict, only \"_metadata\" is expected");
    CHECK(fault("}}b") == "sets the state of a dict, only an OrderedDict has one");
    CHECK(fault(p_ordered() + "]b") == "has a list as an OrderedDict's state");
    CHECK(fault(p_ordered() + "}" + p_int(1) + "Nsb") ==
          "sets the integer 1 of an OrderedDict, only \"_metadata\" is expected");
  }
  SUBCASE("a call of what a call returned") { CHECK(fault(p_ordered() + ")R") == "calls a dict"); }
  SUBCASE("a class of a module that is known") {
    CHECK(fault(p_global("torch", "load")) ==
          "names torch.load, which a file of plain tensors does not need");
    CHECK(fault(p_global("torch.nn.modules.linear", "Linear") + ")\x81") ==
          "names torch.nn.modules.linear.Linear, which a file of plain tensors does not need");
  }
  for (const std::string& body : {system, "(iposix\nsystem\n"s, ")\x81"s, p_ordered() + ")R"})
    CHECK(hint(body) == kDistrust);
}

TEST_CASE("each name of torch that does not make a plain tensor has a message of its own") {
  const auto torch_utils = [](const std::string& name) {
    return fault(p_global("torch._utils", name));
  };
  CHECK(torch_utils("_rebuild_sparse_tensor") ==
        "holds a sparse tensor (torch._utils._rebuild_sparse_tensor), only plain dense tensors are "
        "read");
  CHECK(torch_utils("_rebuild_qtensor").starts_with("holds a quantized tensor"));
  CHECK(
      torch_utils("_rebuild_meta_tensor_no_storage").starts_with("holds a tensor without values"));
  CHECK(torch_utils("_rebuild_wrapper_subclass").starts_with("holds a tensor of another class"));
  CHECK(fault(p_global("torch._tensor", "_rebuild_from_type_v2"))
            .starts_with("holds a tensor of another class"));
  CHECK(fault(p_global("torch", "ComplexFloatStorage")).starts_with("holds a complex tensor"));
  CHECK(fault(p_global("torch", "QInt8Storage")).starts_with("holds a quantized tensor"));
}

TEST_CASE("an opcode that torch.save does not write is refused") {
  CHECK(fault("0") == "uses POP, which torch.save does not write for plain tensors");
  CHECK(fault("N2") == "uses DUP, which torch.save does not write for plain tensors");
  CHECK(fault("\x8F") == "uses EMPTY_SET, which torch.save does not write for plain tensors");
  CHECK(fault("I1\n") == "uses INT, which torch.save does not write for plain tensors");
  CHECK(fault("N\x94") == "uses MEMOIZE, which torch.save does not write for plain tensors");
  CHECK(fault("?") == "has the byte 0x3f where an opcode is");
  CHECK(fault("\x80\2N") == "says its protocol a second time");
  CHECK(fault_of("N.") == "does not begin as a pickle");
  CHECK(fault_of("\x80\1N.") == "is a pickle of protocol 1, torch.save writes 2");
}

TEST_CASE("operations work on what they are for") {
  CHECK(fault("}Na") == "appends to a dict, not a list");
  CHECK(fault("](NN" + p_int(3) + "u") == "sets an item of a list, not of a dict");
  CHECK(fault(p_tensor({}) + p_int(0) + p_int(9) + "s") ==
        "sets an item of a tensor, not of a dict");
  CHECK(fault("}(N" + p_int(3) + "u") == "has None as a key, expected a string or an integer");
  CHECK(fault("}](]u") != "");
  CHECK(fault("}(" + p_text("a") + "u") == "sets the item of a key without a value");
  CHECK(fault("}]" + p_int(3) + "s") == "has a list as a key, expected a string or an integer");
  CHECK(fault(p_dict({{"a", "N"}, {"b", "N"}, {"a", "N"}})) ==
        "has a dict with the string \"a\" twice as a key");
  CHECK(fault("}(" + p_int(-1) + "N" + p_text("") + "Nu") == "");
  CHECK(fault("}(" + p_int(-1) + "N" + p_int(-1) + "Nu") ==
        "has a dict with the integer -1 twice as a key");
  CHECK(fault(p_global("torch", "FloatStorage") + ")R") ==
        "calls the name torch.FloatStorage, which is only a name");
  CHECK(fault(p_global("torch", "Size") + "NR") == "calls with None, expected a tuple");
  CHECK(fault(p_global("builtins", "set") + "]]\x86R") ==
        "makes a set of 2 arguments, expected a list");
  CHECK(fault(p_global("builtins", "set") + "N\x85R") == "makes a set of None, expected a list");
  CHECK(fault(p_global("collections", "OrderedDict") + "]\x85R") ==
        "makes an OrderedDict of arguments, expected none");
}

TEST_CASE("the stack, the marks and the memo hold what is taken of them") {
  const std::string empty = "takes more from its stack than there is";
  CHECK(fault("") == "stops with 0 objects on its stack");
  CHECK(fault("NN") == "stops with 2 objects on its stack");
  CHECK(fault("(N") == "stops with 1 objects on its stack");
  for (const char* body : {"R", "NR", "N(R", "\x85", "N\x86", "a", "b", "Q", "](a", "N(q"})
    CHECK(fault(body + "\0"s) == empty);
  CHECK(fault("Nt") == "needs a mark on its stack and has none");
  CHECK(fault("h\0"s) == "recalls object 0, which it never stored");
  CHECK(fault("Nq\1h\0"s) == "recalls object 0, which it never stored");
  CHECK(fault("Nr\xFF\xFF\xFF\x7F") == "stores an object under the number 2147483647");
  CHECK(fault("Nq\xFF") == "stores an object under the number 255");
  CHECK(fault_of(pickled("N") + "N") == "goes on for 1 bytes after it stops");
}

TEST_CASE("a pickle that ends inside an operand was cut short") {
  const std::string sound =
      pickled(p_dict({{"w", p_tensor({})}, {"big", p_int(int64_t{1} << 40)}}));
  REQUIRE(fault_of(sound) == "");
  for (size_t length = 0; length < sound.size(); ++length) {
    CAPTURE(length);
    CHECK(fault_of(sound.substr(0, length)) != "");
  }
  CHECK(fault_of("\x80\2X\xFF\xFF\xFF\xFFhi") == "was cut short");
  CHECK(fault_of("\x80\2ccollections") == "has a name that does not end");
  CHECK(fault("c" + std::string(300, 'x') + "\nf\n") == "has a name that does not end");
}

TEST_CASE("what is too large is refused") {
  CHECK(fault("\x8A\x09" + std::string(9, '\1')) == "has an integer of 9 bytes");
  CHECK(fault(p_text(std::string(65537, 'x'))) ==
        "holds a string of 65537 bytes, at most 65536 are read");
  CHECK(fault(p_text(std::string(65536, 'x'))) == "");
  CHECK(fault(p_text("\xC0\x80")) == "holds the string \"\\xc0\\x80\", which is not UTF-8");
  const auto nested = [](int depth) {
    std::string out = ")";
    for (int i = 1; i < depth; ++i) out += "\x85";
    return out;
  };
  CHECK(fault(nested(64)) == "");
  CHECK(fault(nested(65)) == "nests containers deeper than 64");
  std::string lists;
  for (int i = 0; i < 65; ++i) lists += "]";
  CHECK(fault(lists + std::string(64, 'a')) == "nests containers deeper than 64");
  CHECK(fault(std::string(1'000'001, 'N')) == "has more than 1000000 objects on its stack");
  CHECK(fault(std::string(1'000'001, '(')) == "has too many marks on its stack");
  std::string objects = "]";
  for (int i = 0; i < 4'000'000; ++i) objects += "]a";
  CHECK(fault(objects) == "makes more than 4000000 objects");
  std::string cells = "]";  // of 17 tuples
  for (int i = 0; i < 17; ++i) cells += "(" + std::string(999'998, 'N') + "ta";
  CHECK(fault(cells) == "puts more than 16000000 objects in others");
  const std::string scalar = p_tensor({.numel = 1, .size = {}, .stride = {}}),
                    arguments = scalar.substr(scalar.find('('), scalar.size() - 1);
  std::string tensors = p_global("torch._utils", "_rebuild_tensor_v2") + "q\0"s +
                        arguments.substr(0, arguments.size() - 1) + "q\1]"s;
  for (int i = 0; i <= 1'000'000; ++i) tensors += "h\0h\1Ra"s;
  CHECK(fault(tensors) == "makes more than 1000000 tensors");
  CHECK(fault_of(std::string((64 << 20) + 1, 'N')) ==
        "has 67108865 bytes, at most 67108864 are read");
}

TEST_CASE("a container that is part of another changes no more, so there are no cycles") {
  CHECK(fault("]q\0h\0a"s) == "changes a list that is already part of another");
  CHECK(fault("}q\0"s + p_text("k") + "h\0s"s) == "changes a dict that is already part of another");
  CHECK(fault("]q\0\x85q\1h\0Na"s + "\x86") == "changes a list that is already part of another");
}

TEST_CASE("a tensor lies within its storage") {
  const auto leaves = [](const PickledView& view) {
    return view_fault(view).find(" that leaves its storage of ") != std::string::npos;
  };
  CHECK(view_fault({.numel = 5}) ==
        "has a tensor of size [2, 3], stride [3, 1] and offset 0 that leaves its storage of 5 "
        "elements");
  CHECK(leaves({.offset = 1}));
  CHECK(leaves({.stride = {4, 1}}));
  CHECK_FALSE(leaves({.numel = 7, .offset = 1}));
  CHECK_FALSE(leaves({.numel = 0, .size = {0, 3}}));
  CHECK(leaves({.numel = 0, .offset = 1, .size = {0, 3}}));
  CHECK(leaves({.size = {int64_t{1} << 62, 8}, .stride = {0, 0}}));
  CHECK(leaves({.size = {2, 2}, .stride = {INT64_MAX, INT64_MAX}}));
  CHECK(leaves({.size = {3}, .stride = {INT64_MAX}}));
  CHECK(leaves({.offset = INT64_MAX}));
  CHECK(leaves({.size = {INT64_MAX, INT64_MAX, 0}, .stride = {1, 1, 1}}));
  CHECK(view_fault({.stride = {-3, 1}}) ==
        "has the integer -3 as a tensor's stride, expected an integer from 0");
  CHECK(view_fault({.size = {-2, 3}}) ==
        "has the integer -2 as a tensor's size, expected an integer from 0");
  CHECK(view_fault({.offset = -1}) ==
        "has the integer -1 as a tensor's offset, expected an integer from 0");
  CHECK(view_fault({.numel = -1}) ==
        "has the integer -1 as a storage's numel, expected an integer from 0");
  CHECK(view_fault({.stride = {1}}) == "has 1 strides for 2 dims");
  CHECK(view_fault({.size = std::vector<int64_t>(9, 1), .stride = std::vector<int64_t>(9, 1)}) ==
        "has 9 dims in a tensor's size, at most 8 are read");
  SUBCASE("and does not blow it up") {
    CHECK(view_fault({.numel = 3, .size = {4, 3}, .stride = {0, 1}}) ==
          "repeats a storage of 3 elements as a tensor of 12 (it was expanded)");
    CHECK(view_fault({.numel = 12, .size = {4, 3}, .stride = {0, 1}}) == "");
  }
}

TEST_CASE("a tensor is made of the arguments that torch.save writes") {
  CHECK(fault(call_v2(0, "N")) == "makes a tensor of None, expected a storage");
  CHECK(fault(call_v2(0, p_storage("UntypedStorage", "0", 24))) ==
        "makes a tensor without a dtype");
  CHECK(fault(call_v2(2, "]")) == "has a list as a tensor's size, expected a tuple");
  CHECK(fault(call_v2(3, p_tuple({"\x88", "\x88"}))) ==
        "has True as a tensor's stride, expected an integer from 0");
  CHECK(fault(call_v2(4, "N")) == "has None as requires_grad");
  CHECK(fault(call_v2(5, "}")) == "has a dict as a tensor's hooks, expected none");
  CHECK(fault(call_v2(5, "N")) == "has None as a tensor's hooks, expected none");
  CHECK(fault(call_v2(5, p_ordered() + p_int(1) + p_int(2) + "s")) ==
        "has a dict as a tensor's hooks, expected none");
  CHECK(fault(call_v2(6, "N")) == "");
  CHECK(fault(call_v2(6, "}")) == "");
  CHECK(fault(call_v2(6, "]")) == "has a list as a tensor's metadata");
  CHECK(fault(call_v2(6, p_dict({{"conj", "\x88"}}))) ==
        "has a tensor that is conjugated or negated when it is read");
  CHECK(fault(p_call(p_global("torch._utils", "_rebuild_tensor_v2"), {})) ==
        "calls _rebuild_tensor_v2 with 0 arguments, expected 6 or 7");
  CHECK(fault(call_v3("UntypedStorage", 11, "uint16")) ==
        "has a storage of 11 bytes, not a whole number of U16");
  CHECK(fault(call_v3("UntypedStorage", 10, "uint16")).find("leaves its storage of 5") !=
        std::string::npos);
  CHECK(fault(call_v3("FloatStorage", 6, "float32")) == "");
  CHECK(fault(call_v3("HalfStorage", 6, "float32")) ==
        "has another dtype for a tensor than for its storage");
  CHECK(fault(call_v3("UntypedStorage", 12, "Size")) ==
        "has the name torch.Size as a tensor's dtype");
  CHECK(fault(call_v3("UntypedStorage", 12, "float32", "N")) == "has None as a tensor's dtype");
}

TEST_CASE("a parameter, a size and a device are made of what torch.save writes for them") {
  const auto parameter = [](const std::vector<std::string>& arguments) {
    return fault(p_call(p_global("torch._utils", "_rebuild_parameter"), arguments));
  };
  const std::string odd =
      "makes a parameter of other things than a tensor, requires_grad and hooks";
  CHECK(parameter({p_tensor({}), "\x88", p_ordered()}) == "");
  CHECK(parameter({p_tensor({}), "\x88"}) == odd);
  CHECK(parameter({"N", "\x88", p_ordered()}) == odd);
  CHECK(parameter({p_tensor({}), "N", p_ordered()}) == odd);
  CHECK(parameter({p_tensor({}), "\x88", "N"}) == "has None as a tensor's hooks, expected none");

  const auto size = [](const std::vector<std::string>& arguments) {
    return fault(p_call(p_global("torch", "Size"), arguments));
  };
  CHECK(size({p_ints(std::vector<int64_t>{2, 3})}) == "");
  CHECK(size({}) == "makes a torch.Size of other things than one tuple");
  CHECK(size({")", ")"}) == "makes a torch.Size of other things than one tuple");
  CHECK(size({"N"}) == "has None as a torch.Size, expected a tuple");

  const auto device = [](const std::vector<std::string>& arguments) {
    return fault(p_call(p_global("torch", "device"), arguments));
  };
  const std::string what = "makes a torch.device of other things than a name and a number";
  CHECK(device({p_text("cpu")}) == "");
  CHECK(device({p_text("cuda"), p_int(1)}) == "");
  CHECK(device({}) == what);
  CHECK(device({p_text("cuda"), p_int(1), p_int(2)}) == what);
  CHECK(device({p_int(0)}) == what);
  CHECK(device({p_text("cuda"), p_text("1")}) == what);
}

TEST_CASE("what stands in a wrong place is named by its value") {
  const auto named = [](const std::string& body) { return fault("}" + body + "Ns"); };
  const std::string expected = " as a key, expected a string or an integer";
  CHECK(named("N") == "has None" + expected);
  CHECK(named("\x88") == "has True" + expected);
  CHECK(named("\x89") == "has False" + expected);
  CHECK(named("G\x3F\xF8\0\0\0\0\0\0"s) == "has the number 1.5" + expected);
  CHECK(named(")") == "has a tuple" + expected);
  CHECK(named("]") == "has a list" + expected);
  CHECK(named("}") == "has a dict" + expected);
  CHECK(named(p_global("torch", "Size")) == "has the name torch.Size" + expected);
  CHECK(named(p_storage("FloatStorage", "0", 6)) == "has a storage" + expected);
  CHECK(named(p_tensor({})) == "has a tensor" + expected);
  CHECK(named(p_call(p_global("torch", "device"), {p_text("cpu")})) == "has a device" + expected);
}

TEST_CASE("a storage is what a persistent id of torch.save says") {
  const std::string odd =
      "has a persistent id that is not (\"storage\", type, key, location, numel)";
  CHECK(fault(p_text("storage") + "Q") == odd);
  CHECK(fault(p_tuple({p_text("storage"), p_global("torch", "FloatStorage"), p_text("0")}) + "Q") ==
        odd);
  CHECK(fault(p_tuple({p_text("module"), p_global("torch", "FloatStorage"), p_text("0"),
                       p_text("cpu"), p_int(1)}) +
              "Q") == odd);
  const std::vector<std::string> sound = {p_text("storage"), p_global("torch", "FloatStorage"),
                                          p_text("0"), p_text("cpu"), p_int(1)};
  CHECK(fault(p_tuple(sound) + "Q") == "");
  for (size_t i = 0; i < 4; ++i) {  // of another type, each
    CAPTURE(i);
    auto parts = sound;
    parts[i] = "N";
    CHECK(fault(p_tuple(parts) + "Q") == odd);
  }
  CHECK(fault(p_storage("float32", "0", 6)) == "has the name torch.float32 as a storage's type");
  CHECK(fault("](" + p_storage("FloatStorage", "0", 6) + p_storage("HalfStorage", "0", 6) + "e") ==
        "says different things of the storage \"0\"");
  CHECK(fault("](" + p_storage("FloatStorage", "0", 6) + p_storage("FloatStorage", "0", 7) + "e") ==
        "says different things of the storage \"0\"");
  CHECK(fault("](" + p_storage("ByteStorage", "0", 6) + p_storage("UntypedStorage", "0", 6) +
              "e") == "says different things of the storage \"0\"");
  CHECK(fault("](" + p_storage("ByteStorage", "0", 6) + p_storage("ByteStorage", "0", 6) + "e") ==
        "");
}
