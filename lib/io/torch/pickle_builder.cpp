#include "lib/io/torch/pickle_builder.h"

#include <fmt/format.h>

#include <algorithm>
#include <tuple>

#include "lib/base/checked.h"
#include "lib/base/utf8.h"

namespace moelora {
namespace {

constexpr size_t kMaxNodes = 4'000'000, kMaxCells = 16'000'000;
using Role = PickleGlobal::Role;

constexpr size_t kMaxTensors = 1'000'000;

int64_t product(const std::vector<int64_t>& extents, bool& fits) {
  int64_t out = 1;
  for (const int64_t extent : extents)
    if (__builtin_mul_overflow(out, extent, &out)) fits = false;
  return out;
}

std::string text_of(const std::vector<int64_t>& numbers) {
  return fmt::format("[{}]", fmt::join(numbers, ", "));
}

}  // namespace

// ---- nodes ----

void PickleBuilder::fail(const std::string& what, const std::string& hint) const {
  throw Error(in_file(where_, fmt::format("byte {}", at)), what, hint);
}

void PickleBuilder::count_node() {
  if (++nodes_ > kMaxNodes) refuse("makes more than {} objects", kMaxNodes);
}

void PickleBuilder::count_cells(size_t count) {
  cells_ += count;
  if (cells_ > kMaxCells) refuse("puts more than {} objects in others", kMaxCells);
}

PickleContainer* PickleBuilder::container(const PickleValue& value) {
  switch (value.kind) {
    case Kind::tuple:
      return &out_.tuples[value.index()];
    case Kind::list:
      return &out_.lists[value.index()];
    case Kind::dict:
      return &out_.dicts[value.index()];
    default:
      return nullptr;
  }
}

// `children` become part of a container of this depth.
void PickleBuilder::close_into(int& depth, std::span<const PickleValue> children) {
  for (const PickleValue& child : children) {
    PickleContainer* const inner = container(child);
    if (inner == nullptr) continue;
    inner->closed = true;
    depth = std::max(depth, inner->depth + 1);
  }
  if (depth > kMaxPickleDepth) refuse("nests containers deeper than {}", kMaxPickleDepth);
}

PickleContainer& PickleBuilder::open_container(const PickleValue& value) {
  PickleContainer& out = *container(value);
  if (out.closed) refuse("changes {} that is already part of another", describe(value));
  return out;
}

PickleValue PickleBuilder::text(std::string_view text) {
  if (text.size() > kMaxPickleText)
    refuse("holds a string of {} bytes, at most {} are read", text.size(), kMaxPickleText);
  if (find_invalid_utf8(text))
    refuse("holds the string {}, which is not UTF-8", in_quotes(text, 40));
  count_node();
  out_.texts.push_back(text);
  return {Kind::text, static_cast<int64_t>(out_.texts.size()) - 1};
}

PickleValue PickleBuilder::tuple(std::span<const PickleValue> items) {
  count_cells(items.size());
  count_node();
  PickleTuple tuple{{}, out_.cells.size(), items.size()};
  close_into(tuple.depth, items);
  out_.cells.insert(out_.cells.end(), items.begin(), items.end());
  out_.tuples.push_back(tuple);
  return {Kind::tuple, static_cast<int64_t>(out_.tuples.size()) - 1};
}

PickleValue PickleBuilder::list() {
  count_node();
  out_.lists.emplace_back();
  return {Kind::list, static_cast<int64_t>(out_.lists.size()) - 1};
}

PickleValue PickleBuilder::dict(bool ordered) {
  count_node();
  out_.dicts.emplace_back().ordered = ordered;
  return {Kind::dict, static_cast<int64_t>(out_.dicts.size()) - 1};
}

PickleValue PickleBuilder::global(std::string_view module, std::string_view name) const {
  if (const auto index = find_pickle_global(module, name))
    return {Kind::global, static_cast<int64_t>(*index)};
  const std::string full = printable(std::string(module) + "." + std::string(name), 80);
  if (const std::string_view kind = unread_torch_kind(module, name); !kind.empty())
    refuse("holds {} ({}), only plain dense tensors are read", kind, full);
  distrust("names {}, which a file of plain tensors does not need", full);
}

void PickleBuilder::append(PickleValue list, std::span<const PickleValue> items) {
  if (list.kind != Kind::list) refuse("appends to {}, not a list", describe(list));
  count_cells(items.size());
  close_into(open_container(list).depth, items);
  open_container(list);  // not part of itself by now
  auto& to = out_.lists[list.index()].items;
  to.insert(to.end(), items.begin(), items.end());
}

void PickleBuilder::set(PickleValue dict, std::span<const PickleValue> keys_and_values) {
  if (dict.kind != Kind::dict) refuse("sets an item of {}, not of a dict", describe(dict));
  if (keys_and_values.size() % 2 != 0) refuse("sets the item of a key without a value");
  count_cells(keys_and_values.size());
  close_into(open_container(dict).depth, keys_and_values);
  open_container(dict);
  for (size_t i = 0; i < keys_and_values.size(); i += 2) {
    const PickleValue& key = keys_and_values[i];
    if (key.kind != Kind::text && key.kind != Kind::integer)
      refuse("has {} as a key, expected a string or an integer", describe(key));
    out_.dicts[dict.index()].items.emplace_back(key, keys_and_values[i + 1]);
  }
}

void PickleBuilder::check_keys() const {
  for (const PickleDict& dict : out_.dicts) {
    if (dict.items.size() < 2) continue;
    std::vector<PickleValue> keys;
    keys.reserve(dict.items.size());
    for (const auto& item : dict.items) keys.push_back(item.first);
    const auto as_key = [&](const PickleValue& key) {
      const bool text = key.kind == Kind::text;
      return std::tuple(text, text ? out_.texts[key.index()] : "", text ? 0 : key.number);
    };
    std::sort(keys.begin(), keys.end(), [&](auto& a, auto& b) { return as_key(a) < as_key(b); });
    const auto twin = std::adjacent_find(keys.begin(), keys.end(),
                                         [&](auto& a, auto& b) { return as_key(a) == as_key(b); });
    if (twin != keys.end()) refuse("has a dict with {} twice as a key", describe(*twin));
  }
}

Pickle PickleBuilder::finish(PickleValue root) {
  check_keys();
  out_.root = root;
  return std::move(out_);
}

// ---- what torch's own functions would make of their arguments: the only calls there are ----

PickleBuilder::Arguments PickleBuilder::items(const PickleValue& tuple) const {
  const PickleTuple& run = out_.tuples[tuple.index()];
  return Arguments(out_.cells).subspan(run.begin, run.count);
}

int64_t PickleBuilder::natural(const PickleValue& value, const char* what) const {
  if (value.kind != Kind::integer || value.number < 0)
    refuse("has {} as {}, expected an integer from 0", describe(value), what);
  return value.number;
}

std::vector<int64_t> PickleBuilder::naturals(const PickleValue& value, const char* what) const {
  if (value.kind != Kind::tuple) refuse("has {} as {}, expected a tuple", describe(value), what);
  const Arguments values = items(value);
  if (values.size() > kMaxPickleRank)
    refuse("has {} dims in {}, at most {} are read", values.size(), what, kMaxPickleRank);
  std::vector<int64_t> out;
  for (const PickleValue& item : values) out.push_back(natural(item, what));
  return out;
}

// ---- storages ----

// ('storage', StorageType, key, location, numel)
PickleValue PickleBuilder::persistent(PickleValue id) {
  const Arguments parts = id.kind == Kind::tuple ? items(id) : Arguments();
  const auto is_text = [&](size_t i) { return parts[i].kind == Kind::text; };
  const auto text_at = [&](size_t i) { return out_.texts[parts[i].index()]; };
  if (parts.size() != 5 || !is_text(0) || text_at(0) != "storage" ||
      parts[1].kind != Kind::global || !is_text(2) || !is_text(3))
    refuse("has a persistent id that is not (\"storage\", type, key, location, numel)");
  const PickleGlobal& type = pickle_global(parts[1].index());
  if (type.role != Role::storage && type.role != Role::untyped_storage)
    refuse("has {} as a storage's type", describe(parts[1]));
  const PickledStorage storage{text_at(2), type.dtype, type.role == Role::untyped_storage,
                               natural(parts[4], "a storage's numel")};
  const auto [it, fresh] = storage_of_key_.try_emplace(storage.key, out_.storages.size());
  if (fresh) {
    count_node();
    out_.storages.push_back(storage);
  }
  const PickledStorage& known = out_.storages[it->second];
  if (known.dtype != storage.dtype || known.untyped != storage.untyped ||
      known.elements != storage.elements)
    refuse("says different things of the storage {}", in_quotes(storage.key, 40));
  return {Kind::storage, static_cast<int64_t>(it->second)};
}

// ---- calls ----

PickleValue PickleBuilder::call(PickleValue callable, PickleValue arguments) {
  if (callable.kind != Kind::global) distrust("calls {}", describe(callable));
  if (arguments.kind != Kind::tuple) refuse("calls with {}, expected a tuple", describe(arguments));
  const PickleGlobal& callee = pickle_global(callable.index());
  switch (callee.role) {
    case Role::ordered_dict:
      if (!items(arguments).empty()) refuse("makes an OrderedDict of arguments, expected none");
      return dict(true);
    case Role::set:
      return set(items(arguments));
    case Role::tensor_v2:
    case Role::tensor_v3:
      return tensor(callee, items(arguments));
    case Role::parameter:
      return parameter(items(arguments));
    case Role::size:
      return size(items(arguments));
    case Role::device:
      return device(items(arguments));
    default:  // storage, untyped_storage, dtype
      refuse("calls {}, which is only a name", describe(callable));
  }
}

// As Python pickles one: of no argument, or of the list of its members, which stands for it.
PickleValue PickleBuilder::set(Arguments arguments) {
  if (arguments.empty()) return list();
  if (arguments.size() > 1)
    refuse("makes a set of {} arguments, expected a list", arguments.size());
  if (arguments[0].kind != Kind::list)
    refuse("makes a set of {}, expected a list", describe(arguments[0]));
  return arguments[0];
}

PickleValue PickleBuilder::tensor(const PickleGlobal& callee, Arguments arguments) {
  const bool v3 = callee.role == Role::tensor_v3;
  const size_t least = v3 ? 7 : 6;
  if (arguments.size() != least && arguments.size() != least + 1)
    refuse("calls {} with {} arguments, expected {} or {}", callee.name, arguments.size(), least,
           least + 1);
  PickledTensor out = view(callee, arguments);
  if (arguments[4].kind != Kind::boolean) refuse("has {} as requires_grad", describe(arguments[4]));
  check_hooks(arguments[5]);
  if (arguments.size() == least + 1) check_metadata(arguments[least]);
  check_view(out);
  if (out_.tensors.size() == kMaxTensors) refuse("makes more than {} tensors", kMaxTensors);
  count_node();
  out_.tensors.push_back(std::move(out));
  return {Kind::tensor, static_cast<int64_t>(out_.tensors.size()) - 1};
}

PickledTensor PickleBuilder::view(const PickleGlobal& callee, Arguments arguments) const {
  if (arguments[0].kind != Kind::storage)
    refuse("makes a tensor of {}, expected a storage", describe(arguments[0]));
  PickledTensor out;
  out.storage = arguments[0].index();
  const PickledStorage& storage = out_.storages[out.storage];
  out.dtype = storage.dtype;
  if (callee.role == Role::tensor_v3) {
    const PickleValue& dtype = arguments[6];
    if (dtype.kind != Kind::global || pickle_global(dtype.index()).role != Role::dtype)
      refuse("has {} as a tensor's dtype", describe(dtype));
    out.dtype = pickle_global(dtype.index()).dtype;
    if (!storage.untyped && storage.dtype != out.dtype)
      refuse("has another dtype for a tensor than for its storage");
  } else if (storage.untyped) {
    refuse("makes a tensor without a dtype");
  }
  out.offset = natural(arguments[1], "a tensor's offset");
  out.shape = naturals(arguments[2], "a tensor's size");
  out.stride = naturals(arguments[3], "a tensor's stride");
  if (out.shape.size() != out.stride.size())
    refuse("has {} strides for {} dims", out.stride.size(), out.shape.size());
  return out;
}

void PickleBuilder::check_view(const PickledTensor& tensor) const {
  const PickledStorage& storage = out_.storages[tensor.storage];
  const int64_t width = storage.untyped ? dtype_bytes(tensor.dtype) : 1;
  if (storage.elements % width != 0)
    refuse("has a storage of {} bytes, not a whole number of {}", storage.elements,
           dtype_name(tensor.dtype));
  const int64_t held = storage.elements / width;
  bool fits = true;
  const int64_t elements = product(tensor.shape, fits);
  int64_t last = tensor.offset, reach = 0;
  bool repeats = false;
  for (size_t d = 0; fits && elements > 0 && d < tensor.shape.size(); ++d) {
    fits = !__builtin_mul_overflow(tensor.shape[d] - 1, tensor.stride[d], &reach) &&
           !__builtin_add_overflow(last, reach, &last);
    repeats = repeats || (tensor.shape[d] > 1 && tensor.stride[d] == 0);
  }
  if (!fits || (elements > 0 ? last >= held : last > held))
    refuse(
        "has a tensor of size {}, stride {} and offset {} that leaves its storage of "
        "{} elements",
        text_of(tensor.shape), text_of(tensor.stride), tensor.offset, held);
  if (repeats && elements > held)
    refuse("repeats a storage of {} elements as a tensor of {} (it was expanded)", held, elements);
}

void PickleBuilder::check_hooks(const PickleValue& hooks) const {
  const bool none = hooks.kind == Kind::dict && out_.dicts[hooks.index()].ordered &&
                    out_.dicts[hooks.index()].items.empty();
  if (!none) refuse("has {} as a tensor's hooks, expected none", describe(hooks));
}

void PickleBuilder::check_metadata(const PickleValue& metadata) const {
  if (metadata.kind == Kind::none) return;
  if (metadata.kind != Kind::dict) refuse("has {} as a tensor's metadata", describe(metadata));
  if (!out_.dicts[metadata.index()].items.empty())
    refuse("has a tensor that is conjugated or negated when it is read");
}

// (tensor, requires_grad, hooks)
PickleValue PickleBuilder::parameter(Arguments arguments) const {
  if (arguments.size() != 3 || arguments[0].kind != Kind::tensor ||
      arguments[1].kind != Kind::boolean)
    refuse("makes a parameter of other things than a tensor, requires_grad and hooks");
  check_hooks(arguments[2]);
  return arguments[0];
}

PickleValue PickleBuilder::size(Arguments arguments) const {
  if (arguments.size() != 1) refuse("makes a torch.Size of other things than one tuple");
  naturals(arguments[0], "a torch.Size");
  return arguments[0];
}

PickleValue PickleBuilder::device(Arguments arguments) const {
  const bool sound = (arguments.size() == 1 || arguments.size() == 2) &&
                     arguments[0].kind == Kind::text &&
                     (arguments.size() == 1 || arguments[1].kind == Kind::integer);
  if (!sound) refuse("makes a torch.device of other things than a name and a number");
  return {Kind::device, 0};
}

// nn.Module.state_dict() leaves the versions of its modules as an attribute of the OrderedDict.
void PickleBuilder::build(PickleValue object, PickleValue state) {
  if (object.kind != Kind::dict || !out_.dicts[object.index()].ordered)
    distrust("sets the state of {}, only an OrderedDict has one", describe(object));
  if (state.kind != Kind::dict) refuse("has {} as an OrderedDict's state", describe(state));
  for (const auto& [key, value] : out_.dicts[state.index()].items)
    if (key.kind != Kind::text || out_.texts[key.index()] != "_metadata")
      refuse("sets {} of an OrderedDict, only \"_metadata\" is expected", describe(key));
  container(state)->closed = true;
}

}  // namespace moelora
