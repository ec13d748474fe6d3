#include "lib/io/pickle_builder.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <tuple>

#include "lib/base/error.h"
#include "lib/base/utf8.h"

namespace moelora {
namespace {

constexpr size_t kMaxNodes = 4'000'000, kMaxCells = 16'000'000;

}  // namespace

double PickleValue::real() const { return std::bit_cast<double>(number); }

std::string describe(const Pickle& pickle, const PickleValue& value) {
  switch (value.kind) {
    case PickleValue::Kind::none:
      return "None";
    case PickleValue::Kind::boolean:
      return value.number != 0 ? "True" : "False";
    case PickleValue::Kind::integer:
      return fmt::format("the integer {}", value.number);
    case PickleValue::Kind::real:
      return fmt::format("the number {}", value.real());
    case PickleValue::Kind::text:
      return fmt::format("the text {}", quoted(pickle.texts[value.index()], 40));
    case PickleValue::Kind::tuple:
      return "a tuple";
    case PickleValue::Kind::list:
      return "a list";
    case PickleValue::Kind::dict:
      return "a dict";
    case PickleValue::Kind::global: {
      const PickleGlobal& g = pickle_global(value.index());
      return fmt::format("the name {}.{}", g.module, g.name);
    }
    case PickleValue::Kind::storage:
      return "a storage";
    case PickleValue::Kind::tensor:
      return "a tensor";
    case PickleValue::Kind::device:
      break;
  }
  return "a device";
}

void PickleBuilder::refuse(const std::string& what) const {
  throw Error(in_file(where_, fmt::format("byte {}", at)), what, hint_);
}

void PickleBuilder::distrust(const std::string& what) const {
  throw Error(in_file(where_, fmt::format("byte {}", at)), what,
              "Nothing of it was run, but Python might: ask its author for safetensors.");
}

// ---- nodes ----

void PickleBuilder::count_node() {
  if (++nodes_ > kMaxNodes) refuse(fmt::format("makes more than {} objects", kMaxNodes));
}

void PickleBuilder::count_cells(size_t count) {
  cells_ += count;
  if (cells_ > kMaxCells) refuse(fmt::format("puts more than {} objects in others", kMaxCells));
}

PickleBuilder::Container* PickleBuilder::container(const PickleValue& value) {
  switch (value.kind) {
    case Kind::tuple:
      return &tuples_[value.index()];
    case Kind::list:
      return &lists_[value.index()];
    case Kind::dict:
      return &dicts_[value.index()];
    default:
      return nullptr;
  }
}

// `children` become part of a container of this depth.
void PickleBuilder::close_into(int& depth, std::span<const PickleValue> children) {
  for (const PickleValue& child : children) {
    Container* const inner = container(child);
    if (inner == nullptr) continue;
    inner->closed = true;
    depth = std::max(depth, inner->depth + 1);
  }
  if (depth > kMaxPickleDepth)
    refuse(fmt::format("nests containers deeper than {}", kMaxPickleDepth));
}

PickleBuilder::Container& PickleBuilder::open_container(const PickleValue& value) {
  Container& out = *container(value);
  if (out.closed)
    refuse(fmt::format("changes {} that is already part of another", describe(value)));
  return out;
}

PickleValue PickleBuilder::add_container(Kind kind, size_t index) {
  count_node();
  (kind == Kind::tuple ? tuples_ : kind == Kind::list ? lists_ : dicts_).emplace_back();
  return {kind, static_cast<int64_t>(index)};
}

PickleValue PickleBuilder::text(std::string_view text) {
  if (text.size() > kMaxPickleText)
    refuse(
        fmt::format("holds a text of {} bytes, at most {} are read", text.size(), kMaxPickleText));
  if (find_invalid_utf8(text)) refuse(fmt::format("holds the text {}, no UTF-8", quoted(text, 40)));
  count_node();
  out_.texts.push_back(text);
  return {Kind::text, static_cast<int64_t>(out_.texts.size()) - 1};
}

PickleValue PickleBuilder::tuple(std::span<const PickleValue> items) {
  count_cells(items.size());
  const PickleValue out = add_container(Kind::tuple, out_.tuples.size());
  out_.tuples.push_back({out_.cells.size(), items.size()});
  out_.cells.insert(out_.cells.end(), items.begin(), items.end());
  close_into(tuples_.back().depth, items);
  return out;
}

PickleValue PickleBuilder::list() {
  const PickleValue out = add_container(Kind::list, out_.lists.size());
  out_.lists.emplace_back();
  return out;
}

PickleValue PickleBuilder::dict(bool ordered) {
  const PickleValue out = add_container(Kind::dict, out_.dicts.size());
  out_.dicts.push_back({ordered, {}});
  return out;
}

PickleValue PickleBuilder::global(std::string_view module, std::string_view name) const {
  if (const auto index = find_pickle_global(module, name))
    return {Kind::global, static_cast<int64_t>(*index)};
  const std::string full = printable(std::string(module) + "." + std::string(name), 80);
  if (const std::string_view kind = unread_torch_kind(module, name); !kind.empty())
    refuse(fmt::format("holds {} ({}), only plain dense tensors are read", kind, full));
  distrust(fmt::format("names {}, which a file of plain tensors does not need", full));
}

void PickleBuilder::append(PickleValue list, std::span<const PickleValue> items) {
  if (list.kind != Kind::list) refuse(fmt::format("appends to {}, not a list", describe(list)));
  count_cells(items.size());
  close_into(open_container(list).depth, items);
  open_container(list);  // not part of itself by now
  auto& to = out_.lists[list.index()].items;
  to.insert(to.end(), items.begin(), items.end());
}

void PickleBuilder::set(PickleValue dict, std::span<const PickleValue> keys_and_values) {
  if (dict.kind != Kind::dict)
    refuse(fmt::format("sets an item of {}, not of a dict", describe(dict)));
  if (keys_and_values.size() % 2 != 0) refuse("sets the item of a key without a value");
  count_cells(keys_and_values.size());
  close_into(open_container(dict).depth, keys_and_values);
  open_container(dict);
  for (size_t i = 0; i < keys_and_values.size(); i += 2) {
    const PickleValue& key = keys_and_values[i];
    if (key.kind != Kind::text && key.kind != Kind::integer)
      refuse(fmt::format("has {} as a key, expected a text or an integer", describe(key)));
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
    if (twin != keys.end())
      refuse(fmt::format("has a dict with {} twice as a key", describe(*twin)));
  }
}

Pickle PickleBuilder::finish(PickleValue root) {
  check_keys();
  out_.root = root;
  return std::move(out_);
}

}  // namespace moelora
