#pragma once

#include <asio/executor_work_guard.hpp>
#include <asio/io_context.hpp>
#include <asio/post.hpp>

#include "client.hpp"
#include "figures.hpp"
#include "plan.hpp"
#include <deque>
#include <future>
#include <thread>
#include <utility>

namespace fleet {

/// A thread with an io_context of its own and every `threads`th client of the fleet. What is asked of it from other
/// threads is posted to it, so that nothing needs a lock.
template <class Transport>
class worker {
  public:
    /// `make(clients, here, executor, index)` adds a client at the end of the deque `clients`.
    template <class Make>
    worker(plan const& p, unsigned number, Make make)
        : p_(p), number_(number), here_(p, io_.get_executor()), guard_(io_.get_executor()) {
        here_.started = !p.wait;
        for (unsigned i = number; i < p.count; i += p.threads) make(clients_, here_, io_.get_executor(), i);
    }
    worker(worker const&) = delete;
    worker& operator=(worker const&) = delete;
    ~worker() {
        if (thread_.joinable()) disconnect();
        join();
    }

    /// Starts its clients, each at its time after `beginning`.
    void start(clock::time_point beginning) {
        asio::co_spawn(io_, launch(beginning), [](std::exception_ptr) {});
        thread_ = std::thread([this] { io_.run(); });
    }

    /// What has happened since the last call.
    std::future<figures> take() {
        std::packaged_task<figures()> taking([this] { return std::exchange(here_.now, {}); });
        auto taken = taking.get_future();
        asio::post(io_, std::move(taking));
        return taken;
    }

    /// Lets publishing begin, where it waits for this.
    void start_publishing() {
        asio::post(io_, [this] {
            here_.started = true;
            here_.place.wake_all({});
        });
    }

    void stop_publishing() {
        asio::post(io_, [this] {
            here_.stopping = true;
            launching_.cancel();
            here_.place.wake_all({});
            for (auto& c : clients_) c.stop_publishing();
        });
    }

    /// Ends all sessions in good order; `join` waits for that.
    void disconnect() {
        asio::post(io_, [this] {
            for (auto& c : clients_) c.disconnect();
            guard_.reset();
        });
    }

    void join() {
        if (thread_.joinable()) thread_.join();
    }

  private:
    task<void> launch(clock::time_point beginning) {
        for (std::size_t i = 0; i < clients_.size() && !here_.stopping; ++i) {
            launching_.expires_at(beginning + p_.connect_interval * (number_ + i * p_.threads));
            std::error_code ignored;
            auto waiting = launching_.async_wait(asio::redirect_error(asio::use_awaitable_t<executor>{}, ignored));
            co_await std::move(waiting);
            if (!here_.stopping) clients_[i].start();
        }
    }

    plan const& p_;
    unsigned number_;
    asio::io_context io_{1};
    surroundings here_;
    asio::executor_work_guard<executor> guard_;
    timer launching_{io_.get_executor()};
    std::deque<client<Transport>> clients_;
    std::thread thread_;
};

}  // namespace fleet
