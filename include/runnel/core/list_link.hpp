#pragma once

namespace runnel {

/// A link of a circular, intrusive, doubly linked list; alone it is its own neighbour. Destruction unlinks.
class list_link {
  public:
    list_link() noexcept = default;
    list_link(list_link const&) = delete;
    list_link& operator=(list_link const&) = delete;
    ~list_link() {
        if (linked()) unlink();
    }

    bool linked() const noexcept { return next_ != this; }
    list_link* next() const noexcept { return next_; }

    void insert_before(list_link& position) noexcept {
        previous_ = position.previous_;
        next_ = &position;
        previous_->next_ = this;
        position.previous_ = this;
    }

    void unlink() noexcept {
        previous_->next_ = next_;
        next_->previous_ = previous_;
        previous_ = next_ = this;
    }

    /// Moves all other links of `list` in front of this one, in their order.
    void take_all(list_link& list) noexcept {
        if (!list.linked()) return;
        previous_->next_ = list.next_;
        list.next_->previous_ = previous_;
        list.previous_->next_ = this;
        previous_ = list.previous_;
        list.previous_ = list.next_ = &list;
    }

  private:
    list_link* previous_ = this;
    list_link* next_ = this;
};

}  // namespace runnel
